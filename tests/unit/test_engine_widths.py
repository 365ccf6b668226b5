"""Widths that real models lost to an operator's detail: each is followed, and exactly."""

from __future__ import annotations

import pytest
import torch
from support.drafts import choose, draft
from torch import nn

import prunekit
from prunekit.planning.symmetry_check import symmetry
from tests.support.compare import distance, masked, run


class PooledTokens(nn.Module):
    """A map whose channels lie last in memory is pooled to one pixel: torch fixes its strides with as_strided."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x).permute(0, 3, 1, 2)
        return self.b(self.pool(y).flatten(1))


class MixedTokens(nn.Module):
    """A convolution of kernel 1 mixes three tokens: it takes their features one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)
        self.mix = nn.Conv1d(3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.mix(self.a(x)).squeeze(1))


class Counted(nn.Module):
    """The key bias is the middle third of a vector, found by counting elements."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(24, 6)), nn.Parameter(torch.randn(24))
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = self.bias.clone()
        length = bias.numel() // 3
        bias[length : 2 * length].zero_()
        q, k, v = nn.functional.linear(x, self.weight, bias).reshape(x.size(0), x.size(1), 3, -1).unbind(2)
        return self.out((q @ k.transpose(-2, -1)).tanh() @ v)


class Multiplied(nn.Module):
    """Each grouped convolution doubles the channels of every group, five times over."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.grow = nn.ModuleList(nn.Conv2d(4 * 2**i, 4 * 2 ** (i + 1), 1, groups=4 * 2**i) for i in range(5))
        self.last = nn.Linear(128, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for layer in self.grow:
            x = layer(x)
        return self.last(x.mean((2, 3)))


CASES = {
    "pooled tokens": (PooledTokens, (2, 4, 4, 6), "a.weight:0"),
    "mixed tokens": (MixedTokens, (2, 3, 6), "a.weight:0"),
    "counted elements": (Counted, (2, 5, 6), "weight:0/head_dim"),
    "channels multiplied five times": (Multiplied, (2, 3, 4, 4), "first.weight:0"),
}


@pytest.mark.parametrize("name", CASES)
def test_width_is_followed_exactly(name):
    torch.manual_seed(0)
    make, shape, group = CASES[name]
    model, x = make().double(), torch.randn(shape, dtype=torch.float64)
    structure = prunekit.trace(model, x)
    assert group in {g.name for g in structure.groups}, [(f.name, f.reason) for f in structure.frozen]
    assert symmetry(model, structure.groups, structure.inputs).passed
    chosen = [g for g in choose(structure) if not g.normalised]
    made = draft(model, x, structure=structure, include=[g.name for g in chosen], ratio=0.5)
    assert group in {w.group for w in made.plan.widths}
    expected = run(masked(model, chosen, made.kept), x)
    prunekit.apply(model, made.plan)
    assert distance(expected, run(model, x)) < 1e-9
