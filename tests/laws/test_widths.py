"""Laws of what is kept up to date: after any changes it is what would be found anew."""

from __future__ import annotations

import os
import random

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.networks import build
from torch import nn

import prunekit
from prunekit.planning.arithmetic import Arithmetic
from prunekit.planning.solving import solved
from prunekit.quantities.counted_cost import CountedCost

EXAMPLES = int(os.environ.get("PRUNEKIT_LAW_EXAMPLES", "40")) // 3  # each looks at every axis after every change
SEEDS = st.integers(0, 10**6)


def alive(structure, kept):
    """For each class of coordinates whether it survives, by the definition: if all units that it lives by are kept."""
    lives = np.ones(structure.fates.frozen.size + 1, dtype=bool)  # owner -1 points at the last entry
    for number, group in enumerate(structure.groups):
        classes = np.nonzero(structure.assembly.group_of == number)[0]
        lives[classes] = np.isin(structure.assembly.unit_of[classes], kept[group.name].numpy())
    return lives[structure.fates.owners].all(axis=1)


def axes_of(structure):
    found = {id(axis): axis for axes in structure.coupler.axes.values() for axis in axes if axis is not None}
    return list(found.values())


class Halved(nn.Module):
    """The second half of the units stands on an axis twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        y = torch.cat([x, x[..., x.shape[-1] // 2 :]], -1)
        return self.last((y @ y.transpose(-1, -2)).tanh() @ x)


def test_units_that_own_unlike_shares_are_counted_one_by_one():
    structure = prunekit.trace(Halved(), torch.ones(2, 4))
    assert not all(row.even for row in structure.rows.all)
    assert not CountedCost(structure).exact
    for seed in range(5):
        follows(structure, random.Random(seed), 3)


@given(SEEDS, st.randoms(use_true_random=False), st.integers(1, 4))
@settings(max_examples=EXAMPLES, deadline=None)
def test_what_changes_a_few_widths_at_a_time_is_what_is_found_anew(seed, dice, changes):
    model, inputs = build(seed)
    follows(prunekit.trace(model, inputs), dice, changes)


def follows(structure, dice, changes):
    kept = {group.name: torch.arange(group.size) for group in structure.groups}
    lengths, arithmetic, counted = structure.lengths({}), Arithmetic(structure, {}), CountedCost(structure)
    for _ in range(changes):
        some = dice.sample(structure.groups, dice.randint(1, len(structure.groups))) if structure.groups else []
        units = {g.name: dice.sample(range(g.size), dice.randint(1, g.size)) for g in some}
        kept |= {name: torch.tensor(found) for name, found in units.items()}
        before = {id(axis): lengths.of(axis, axis.size) for axis in axes_of(structure)}
        changed = set(lengths.keep({name: kept[name] for name in units}))
        arithmetic.keep({name: kept[name] for name in units})
        cost = counted({name: len(found) for name, found in units.items()})
        lives = alive(structure, kept)
        for axis in axes_of(structure):
            here = lives[structure.fates.fate[axis]]
            assert np.array_equal(lengths.survivors(axis), here)
            assert lengths.of(axis, axis.size) == here.sum()
            assert (structure.rows.number(axis) in changed) == (before[id(axis)] != here.sum())
        wrong = solved(structure, structure.lengths(kept), structure.equations)[1]
        assert [structure.equations[place] for place in arithmetic.violated()] == wrong
        firsts = {name: torch.arange(len(found)) for name, found in kept.items()}
        assert cost == structure.cost(firsts)
