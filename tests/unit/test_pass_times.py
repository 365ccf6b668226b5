"""Seconds of passes out of operators: each is timed once, counted as often as it runs, and scaled by what is left."""

import pytest
import torch
from torch import nn

import prunekit
from prunekit.quantities.pass_times import LARGE, PassTimes, both_of, is_product, share_left
from prunekit.quantities.work import works

CPU = torch.device("cpu")


class Ticking:
    """Every call takes one second."""

    def __init__(self):
        self.calls = 0

    def seconds(self, run, device):
        run()
        self.calls += 1
        return 1.0


def net(blocks=1, width=8):
    layers = [nn.Linear(4, width), nn.ReLU()]
    for _ in range(blocks):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 3))


def test_what_recurs_is_timed_once_and_counted_every_time():
    clocks = [Ticking(), Ticking()]
    times = [
        PassTimes.of(prunekit.trace(net(blocks), torch.randn(2, 4)), CPU, clock)
        for blocks, clock in zip((2, 9), clocks, strict=True)
    ]
    assert clocks[0].calls == clocks[1].calls
    assert times[1].backward({}) - times[0].backward({}) == 2 * 7  # seven more products and seven more rectifiers


@pytest.mark.parametrize("kept", [4, 2])
def test_a_product_shrinks_by_both_of_its_widths_and_the_rest_by_one(kept):
    structure = prunekit.trace(net(1), torch.randn(2, 4))
    left = {group.name: torch.arange(kept) for group in structure.groups}
    shapes = structure.shapes(left)
    shares = [(is_product(work), share_left(work, shapes)) for work in works(structure.trace)]
    share = kept / 8
    assert [value for product, value in shares if not product] == pytest.approx([share, share])
    assert [value for product, value in shares if product] == pytest.approx([share, share**2, share])


def test_a_model_without_weights_is_timed_all_the_same():
    with torch.device("meta"):
        model = net()
    times = PassTimes.of(prunekit.trace(model, torch.empty(2, 4, device="meta")), CPU)
    assert times.forward({}) > 0
    assert times.backward({}) > 0


def test_a_large_operator_is_timed_in_part():
    class Wide(nn.Module):
        def forward(self, x):
            return x.unsqueeze(-1).expand(*x.shape, 64).softmax(-1)

    structure = prunekit.trace(Wide(), torch.empty(2 * LARGE // 64, 1))
    (work,) = [work for work in works(structure.trace) if "softmax" in work.name]
    sizes = []

    class Looking:
        def seconds(self, run, device):
            result = run()
            sizes.append((result if isinstance(result, torch.Tensor) else result[0]).numel())
            return 1.0

    both = both_of(work, CPU, Looking())
    assert max(sizes) <= LARGE
    assert both.forward == pytest.approx(2 * LARGE / sizes[0])


def test_what_writes_into_its_operand_has_a_backward_pass_too():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4)

        def forward(self, x):
            return self.first(x).relu_()

    times = PassTimes.of(prunekit.trace(InPlace(), torch.randn(2, 4)), CPU, Ticking())
    assert times.backward({}) == 2.0
