"""The figures of Torch-Pruning, where it has the same criterion and is right."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import prunekit
from prunekit.scorers import (
    LAMP,
    BatchNormScale,
    Magnitude,
    Statistics,
)


class Plain(nn.Module):
    """conv, batch norm, conv: one group of six channels without biases, as Torch-Pruning reads it."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, bias=False)
        self.n = nn.BatchNorm2d(6)
        self.b = nn.Conv2d(6, 4, 3)

    def forward(self, x):
        return self.b(self.n(self.a(x)).relu())


def theirs(importance, model, x):
    import torch_pruning as tp

    graph = tp.DependencyGraph().build_dependency(model, x)
    group = graph.get_pruning_group(model.a, tp.prune_conv_out_channels, idxs=list(range(6)))
    return importance(group).detach().double()


@pytest.mark.parametrize(
    ("mine", "make"),
    [
        (Magnitude(p=1, across="sum", within="sum"), lambda tp: ("GroupMagnitudeImportance", {"p": 1})),
        (BatchNormScale(), lambda tp: ("BNScaleImportance", {})),
    ],
    ids=["magnitude", "batch_norm_scale"],
)
def test_same_as_torch_pruning(mine, make):
    tp = pytest.importorskip("torch_pruning")
    torch.manual_seed(0)
    model, x = Plain().eval(), torch.randn(1, 3, 8, 8)
    nn.init.uniform_(model.n.weight, 0.5, 1)
    nn.init.zeros_(model.n.bias)
    name, options = make(tp)
    options = options | {"normalizer": None} | ({"group_reduction": "sum"} if "Magnitude" in name else {})
    found = theirs(getattr(tp.importance, name)(**options), model, x)
    group = prunekit.trace(model, x).group("a.weight:0")
    torch.testing.assert_close(mine.score(group, Statistics(model)), found, rtol=1e-5, atol=0)


def test_lamp_as_torch_pruning():
    tp = pytest.importorskip("torch_pruning")
    torch.manual_seed(0)
    model, x = Plain().eval(), torch.randn(1, 3, 8, 8)
    nn.init.zeros_(model.n.bias)
    found = theirs(tp.importance.LAMPImportance(group_reduction="sum", normalizer="lamp"), model, x)
    group = prunekit.trace(model, x).group("a.weight:0")
    # theirs takes the squared norm for x and divides x, not x^2, by the sum of the larger ones: the same formula
    torch.testing.assert_close(LAMP().score(group, Statistics(model)), found, rtol=1e-5, atol=0)
