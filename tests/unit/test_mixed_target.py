"""One target over blocks and widths: what is worth least goes, whichever of the two it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import prunekit
from prunekit.errors import InputError, SelectionError
from prunekit.plans import Plan


class Block(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(x)))


class Net(nn.Module):
    def __init__(self, blocks: int = 6, width: int = 16, hidden: int = 32) -> None:
        super().__init__()
        self.first = nn.Linear(8, width)
        self.blocks = nn.ModuleList(Block(width, hidden) for _ in range(blocks))
        self.last = nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


@torch.no_grad()
def idle_blocks(net: Net, which: tuple[int, ...], share: float = 1e-3) -> Net:
    """Of these blocks nothing is missed."""
    for number in which:
        net.blocks[number].down.weight.mul_(share)
        net.blocks[number].down.bias.mul_(share)
    return net


@torch.no_grad()
def idle_units(net: Net) -> Net:
    """Of every block half of the hidden units is not missed."""
    for block in net.blocks:
        block.up.weight[::2] *= 1e-3
        block.up.bias[::2] *= 1e-3
        block.down.weight[:, ::2] *= 1e-3
    return net


def pruned(net, **more):
    torch.manual_seed(1)
    data = [torch.randn(4, 8) for _ in range(6)]
    how = prunekit.Measured(widths=(0.75, 0.5), samples=6, sets=2, rounds=0)
    asked = {"roles": ["depth.block", "mlp.hidden"], "target": "params<=62%", "allocation": how, "align": 1, **more}
    return prunekit.prune(net.eval(), data[0], data=data, **asked)


# each criterion, and each with what differs: ridge beside one of widths and one of depth
@pytest.mark.parametrize(
    ("scorer", "compensate"),
    [("wanda", "ridge"), ("wanda", None), ("magnitude", None), ("damage_greedy", "ridge")],
)
def test_blocks_that_do_nothing_go_before_widths_do(scorer, compensate):
    torch.manual_seed(0)
    net = idle_blocks(Net(), (1, 4))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(64, 8)
    want = net.eval()(x)
    result = pruned(net, scorer=scorer, compensate=compensate)
    assert len(net.blocks) == 4
    assert result.report.params["after"] <= 0.62 * result.report.params["before"]
    assert "2 are taken" in " ".join(result.report.notes)
    assert Plan.from_json(result.plan.to_json()) == result.plan
    assert (net(x) - want).abs().mean() < 0.2 * want.abs().mean()
    result.undo()
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())


def test_where_widths_have_the_slack_no_block_goes():
    torch.manual_seed(0)
    net = idle_units(Net())
    result = pruned(net, scorer="wanda")
    assert len(net.blocks) == 6
    assert result.report.params["after"] <= 0.62 * result.report.params["before"]


def test_where_no_block_can_go_the_widths_alone_meet_the_target(caplog):
    torch.manual_seed(0)
    net = Net(blocks=3)
    for block in net.blocks:  # whoever hooks a block counts on it
        block.register_forward_hook(lambda module, given, output: None)
    result = pruned(net, scorer="wanda")
    assert len(net.blocks) == 3
    assert "no block goes" in caplog.text
    assert result.report.params["after"] <= 0.62 * result.report.params["before"]


def test_blocks_alone_may_meet_the_target():
    torch.manual_seed(0)
    net = idle_blocks(Net(), (0, 2, 3), 0.0)
    result = pruned(net, target="params<=75%", scorer="wanda")
    assert len(net.blocks) == 4
    assert not result.plan.cuts


def test_nothing_measured_or_out_of_reach_is_refused_and_the_model_is_as_it_was():
    torch.manual_seed(0)
    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(InputError, match="how much of it depth takes"):
        pruned(net, allocation="ranked")
    with pytest.raises(SelectionError):
        pruned(net, target="params<=1%")
    with pytest.raises(InputError, match="refit in order"):
        pruned(net, compensate="ridge-in-order")
    assert len(net.blocks) == 6
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())


def test_a_criterion_of_widths_leaves_blocks_to_their_damage_where_a_ratio_asks_for_both():
    torch.manual_seed(0)
    net = idle_blocks(Net(), (1, 4))
    pruned(net, target=None, ratio={"depth.block": 0.4, "mlp.hidden": 0.25}, allocation="ranked", scorer="wanda")
    assert [block.up.out_features for block in net.blocks] == [24] * 4
    torch.manual_seed(0)
    own = idle_blocks(Net(), (1, 4))
    kept = [own.blocks[number].up.bias for number in (0, 2, 3, 5)]
    for block, bias in zip(net.blocks, kept, strict=True):
        assert set(block.up.bias.tolist()) <= set(bias.tolist())


def test_a_second_call_over_both_measures_no_width_or_block_again(tmp_path):
    how = prunekit.Measured(widths=(0.5,), samples=6, sets=1, rounds=0, store=tmp_path / "damages.json")

    def plans_measured():
        torch.manual_seed(0)
        result = pruned(idle_units(Net()), allocation=how)
        (line,) = [note for note in result.report.notes if note.startswith("measured allocation")]
        return int(line.split(" plans measured")[0].split()[-1])

    first, second = plans_measured(), plans_measured()
    assert first > 6
    assert second == 0


class Counted:
    """Magnitude, and how often it was asked about each group."""

    def __init__(self):
        self.asked = []

    def score(self, group, statistics):
        self.asked.append(group.name)
        return prunekit.Magnitude().score(group, statistics)


@pytest.mark.parametrize("refit", [None, "ridge"])
def test_widths_are_scored_once_however_many_sets_are_tried(refit):
    scorer = Counted()
    made = pruned(idle_blocks(Net(), (1, 4)), scorer=scorer, compensate=refit)
    told = [note for note in made.report.notes if "depth and widths within one target" in note]
    assert "damage by units of depth gone: 0 " in told[0]
    assert "measured widths alone" in told[0]
    assert sorted(scorer.asked) == sorted(set(scorer.asked))
    assert made.report.scorer == repr(scorer)
