"""What one call does, counted in operations: what nobody asked for is not done, and nothing is done twice."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import prunekit
from prunekit.coupling import structure as structures
from prunekit.selection.ratio import nearest


class Residual(nn.Module):
    """Two residual blocks between two layers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16)) for _ in range(2)
        )
        self.last = nn.Linear(16, 3)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)


@pytest.fixture
def residual():
    torch.manual_seed(0)
    return Residual().eval(), torch.randn(2, 6)


def test_depth_is_looked_for_where_a_role_asks_for_it_and_once(residual, monkeypatch):
    model, x = residual
    looked = []

    def counted(*given):
        looked.append(given)
        return structures_find(*given)

    structures_find = structures.find_branches
    monkeypatch.setattr(structures, "find_branches", counted)
    structure = prunekit.trace(model, x)
    prunekit.prune(model, x, structure=structure, ratio=0.5).undo()
    prunekit.prune(model, x, target="params<=60%", scorer="magnitude").undo()
    assert not looked
    result = prunekit.prune(model, x, structure=structure, roles=["depth.mlp"], ratio=0.5)
    assert len(looked) == 1
    assert structure.depth.groups
    assert len(looked) == 1
    assert result.plan.absences


@given(
    allowed=st.lists(st.integers(1, 200), min_size=1, max_size=20, unique=True).map(sorted),
    width=st.fractions(0, 220, max_denominator=50),
)
def test_the_nearest_width_is_found_without_trying_all(allowed, width):
    assert nearest(allowed, Fraction(width), "nearest") == min(allowed, key=lambda w: (abs(w - width), -w))
