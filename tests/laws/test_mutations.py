"""A coupling that is broken on purpose must be caught, by symmetry or by the rehearsal: the net under the engine."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from support.networks import build

import prunekit
from prunekit.coupling.coupler import Coupler
from prunekit.errors import PrunekitError
from prunekit.planning.rehearsal import rehearse
from prunekit.planning.solving import make_plan
from prunekit.planning.symmetry_check import symmetry

SEEDS = range(0, 24, 2)


def caught(model, structure):
    """Whether symmetry fails, or halving each group makes the plan or its rehearsal fail."""
    if not structure.groups:
        return True  # nothing is left that could be cut wrongly
    if symmetry(model, structure.groups, structure.inputs).broken:
        return True
    for group in structure.groups:
        kept = {group.name: torch.arange(max(1, group.size // 2))}
        try:
            rehearse(model, structure, make_plan(model, structure, kept), kept)
        except (PrunekitError, RuntimeError, ValueError):
            return True
    return False


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sound_structure_is_not_caught(seed):
    model, inputs = build(seed)
    structure = prunekit.trace(model, inputs)
    assert symmetry(model, structure.groups, structure.inputs).broken == ()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_shifted_offset_is_caught(seed):
    model, inputs = build(seed)
    structure = prunekit.trace(model, inputs)
    r = random.Random(seed)
    for group in structure.groups:
        if len(group.members) < 2 or group.size < 3:
            continue
        at = r.randrange(len(group.members))
        member = group.members[at]
        if member.is_buffer and "running" not in member.tensor and "scale" not in member.tensor:
            continue
        wrong = member.unit_of.clone()
        held = wrong >= 0
        wrong[held] = (wrong[held] + 1) % group.size
        members = [*group.members[:at], replace(member, unit_of=wrong), *group.members[at + 1 :]]
        broken = replace(group, members=tuple(members))
        assert symmetry(model, [broken], structure.inputs).broken == (group.name,), (group.name, member.tensor)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_lost_member_is_caught(seed):
    model, inputs = build(seed)
    structure = prunekit.trace(model, inputs)
    r = random.Random(seed)
    for group in structure.groups:
        if len(group.members) < 2:
            continue
        at = r.randrange(len(group.members))
        broken = replace(group, members=group.members[:at] + group.members[at + 1 :])
        found = symmetry(model, [broken], structure.inputs)
        assert found.broken == (group.name,), (group.name, group.members[at].tensor)


def test_lost_edges_are_caught(monkeypatch):
    """Every edge of several networks is lost once. Where the groups come out the same, the edge said nothing new."""
    harmful = silent = 0
    for seed in (1, 3, 6, 16):
        model, inputs = build(seed)
        sound = footprints(prunekit.trace(model, inputs))
        count = len(prunekit.trace(model, inputs).coupler.labels.edges)
        for drop in random.Random(seed).sample(range(count), min(8, count)):
            with monkeypatch.context() as patch:
                patch.setattr(Coupler, "run", without_edge(drop))
                broken = prunekit.trace(model, inputs)
            if footprints(broken) == sound:
                continue
            harmful += 1
            if not caught(model, broken):
                silent += 1
    assert harmful >= 10
    assert silent == 0


def without_edge(drop):
    run = Coupler.run

    def broken(self):
        run(self)
        del self.labels.edges[drop]

    return broken


def footprints(structure):
    return sorted(
        (g.size, sorted((m.tensor, m.axis, tuple(m.unit_of.tolist())) for m in g.members)) for g in structure.groups
    )
