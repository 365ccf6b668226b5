"""Blocks of neighbours, pools of modules, and what excluding a layer keeps."""

import pytest
import torch
from torch import nn

import prunekit
from prunekit.errors import InputError


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 48, 3), nn.ReLU(), nn.Conv2d(48, 40, 3), nn.ReLU(), nn.Conv2d(40, 8, 3)]
    return nn.Sequential(*layers).eval(), torch.randn(1, 3, 12, 12)


def kept(model, x, **options):
    return {w.group: w.kept for w in prunekit.plan(model, x, **options).widths}


def blocks_of(units, size):
    assert len(units) % size == 0
    return [units[i : i + size] for i in range(0, len(units), size)]


@pytest.mark.parametrize("options", [{"ratio": 0.5}, {"target": "params<=40%"}, {"ratio": 0.4, "ranking": "global"}])
@pytest.mark.parametrize("align", [1, 4, None])
def test_neighbours_stay_together(options, align):
    model, x = network()
    found = kept(model, x, granularity=8, align=align, **options)
    assert found
    for units in found.values():
        for block in blocks_of(units, 8):
            assert list(block) == list(range(block[0], block[0] + 8))
            assert block[0] % 8 == 0


def test_the_best_block_stays_by_the_mean_of_its_scores():
    model, x = network()
    with torch.no_grad():
        model[0].weight.fill_(0.1)
        model[0].weight[16:24] = 1.0
        model[0].weight[3] = 4.0  # one strong unit in a weak block
    found = kept(model, x, granularity={"0.weight:0": 8}, ratio={"0.weight:0": 5 / 6}, align=1)
    assert found["0.weight:0"] == tuple(range(16, 24))


def test_a_width_that_the_block_does_not_divide_takes_the_largest_that_does():
    model, x = network()
    found = kept(model, x, granularity=16, ratio=0.5, align=1)
    assert all(len(block) == 8 and block[0] % 8 == 0 for block in blocks_of(found["2.weight:0"], 8))


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "8", {"channels": 0}, {"nothing": 8}])
def test_granularity_that_cannot_be(value):
    model, x = network()
    with pytest.raises(InputError):
        kept(model, x, granularity=value, ratio=0.5)


def test_pools_of_modules():
    model, x = network()
    measured = {"align": 1, "normaliser": "none", "scorer": "magnitude"}
    together = kept(model, x, ratio=0.3, ranking="global", **measured)
    apart = kept(model, x, ratio=0.3, ranking="global", **measured, pools=[["0"], ["2.weight:0"]])
    assert together.keys() != apart.keys()
    assert len(apart["0.weight:0"]) == 34
    assert len(apart["2.weight:0"]) == 28
    with pytest.raises(InputError, match="is in two pools"):
        kept(model, x, ratio=0.3, ranking="global", pools=[["0"], ["channels"]])
    with pytest.raises(InputError, match="matches no role and no module"):
        kept(model, x, ratio=0.3, ranking="global", pools=[["nowhere"]])


def test_pools_of_neighbours():
    """A layer reads its neighbour's width: that is in the neighbour's pool, whichever comes first."""
    model, x = network()
    measured = {"align": 1, "normaliser": "none", "scorer": "magnitude", "ratio": 0.3, "ranking": "global"}
    apart = kept(model, x, **measured, pools=[["0.weight:0"], ["2.weight:0"]])
    for pools in ([["0"], ["2"]], [["2"], ["0"]], [["0*"], ["2*"]]):
        assert kept(model, x, **measured, pools=pools) == apart
    with pytest.raises(InputError, match=r"by '0' and by '0\.\*'"):
        kept(model, x, **measured, pools=[["0"], ["0.*"]])


class Transposed(nn.Module):
    """A layer whose weight has its output axis second."""

    def __init__(self):
        super().__init__()
        self.first, self.up, self.last = nn.Conv2d(3, 16, 3), nn.ConvTranspose2d(16, 24, 2), nn.Conv2d(24, 4, 1)

    def forward(self, x):
        return self.last(self.up(self.first(x).relu()).relu())


def test_excluding_a_layer_keeps_what_it_writes():
    model, x = network()
    assert set(kept(model, x, ratio=0.5, exclude=["2"])) == {"0.weight:0"}
    assert set(kept(model, x, ratio=0.5, exclude=["0"])) == {"2.weight:0"}
    assert set(kept(model, x, ratio=0.5, exclude=[model[4]])) == {"0.weight:0", "2.weight:0"}
    model, x = Transposed().eval(), torch.randn(1, 3, 8, 8)
    assert set(kept(model, x, ratio=0.5, exclude=["up"])) == {"first.weight:0"}


def test_in_keeps_what_a_layer_reads():
    model, x = network()
    assert set(kept(model, x, ratio=0.5, exclude=["4:in"])) == {"0.weight:0"}
    with pytest.raises(prunekit.errors.NothingToPruneError):
        kept(model, x, ratio=0.5, exclude=["2", "2:in"])
    model, x = Transposed().eval(), torch.randn(1, 3, 8, 8)
    assert set(kept(model, x, ratio=0.5, exclude=["up:in"])) == {"up.weight:1"}
