"""The prune stage: score, select, plan, apply."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from prunekit.api import make_plan, trace
from prunekit.apply import apply
from prunekit.coupling import Group, Structure
from prunekit.errors import RecipeError
from prunekit.inputs import Inputs, Sample
from prunekit.plan import Plan
from prunekit.plugins import Samples
from prunekit.recipes.stages import Prune
from prunekit.scorers import Scorer, Statistics
from prunekit.selection import select
from prunekit.selection.select import Ranking

HEADS = "attention.heads"
# Two ways to narrow an attention that exclude each other in one cut: whole heads go, or every head gets thinner.
# A stage that names no role takes the heads.
EITHER_OR = "attention.head_dim"


@dataclass(frozen=True)
class Batches:
    """The first ``count`` samples as a sequence for ``Statistics``; each is encoded when it is asked for."""

    samples: Samples
    count: int

    def __len__(self) -> int:
        return min(self.count, len(self.samples))

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Sample(Inputs((self.samples.batch([index]),)))


def structure_of(part: nn.Module, samples: Samples) -> Structure:
    """The structure of ``part`` as it stands, traced with one sample's input. Raises TraceError."""
    device = next(part.parameters()).device
    return trace(part, samples.batch([0]).to(device))


def cut(
    part: nn.Module,
    stage: Prune,
    structure: Structure,
    samples: Samples,
    scorer: Scorer,
    ratio: float,
    settings: Mapping[str, Any],
    progress: Callable[[int, int], None],
) -> Plan:
    """Prune ``part`` in place as ``stage`` says and return the plan that did it.

    Widths are rounded down to a multiple of their alignment. Raises RecipeError where a role of the stage has no group.
    """
    groups = reached(structure, stage)
    statistics = Statistics(
        part,
        cast(Any, Batches(samples, int(settings["images"]))),
        parameters={member.tensor for group in groups for member in group.parameters},
        progress=progress,
    )
    scores = {group.name: scorer.score(group, statistics) for group in groups}
    heads = head_count(structure)
    kept = select(
        groups,
        structure.ties,
        scores,
        ratio=ratio,
        ranking=cast(Ranking, settings["ranking"]),
        align={role: heads if step == "heads" else int(step) for role, step in stage.align.items()} or None,
        normaliser=str(settings["normaliser"]),
        pools=stage.pools or None,
        rounding="down" if stage.pools else "nearest",
    )
    plan = make_plan(structure, kept)
    apply(part, plan)
    return plan


def reached(structure: Structure, stage: Prune) -> tuple[Group, ...]:
    """The groups that the stage prunes."""
    roles = {group.role for group in structure.groups}
    if not stage.pools:
        wanted = roles - ({EITHER_OR} if HEADS in roles else set())
    else:
        wanted = {role for pool in stage.pools for role in pool}
        if missing := sorted(wanted - roles):
            frozen = "; ".join(f"{f.name}: {f.reason}" for f in structure.frozen[:3])
            raise RecipeError(
                f"the model has no group with the role {', '.join(missing)}",
                where=stage.title,
                hint=f"its roles: {', '.join(sorted(roles)) or 'none'}" + (f"; frozen: {frozen}" if frozen else ""),
            )
    return tuple(group for group in structure.groups if group.role in wanted)


def head_count(structure: Structure) -> int:
    """What all numbers of attention heads in the model are multiples of; 1 without attention."""
    return math.gcd(*(group.size for group in structure.groups if group.role == HEADS)) or 1


def seeded(seed: int) -> None:
    """Make what follows repeatable, on every device."""
    torch.manual_seed(seed)
