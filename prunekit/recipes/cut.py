"""The prune stage: score, select, plan, verify, apply."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from prunekit.api import trace
from prunekit.apply import apply
from prunekit.coupling.structure import Structure
from prunekit.draft import Request, choose, draft
from prunekit.errors import RecipeError
from prunekit.inputs import Inputs, Sample
from prunekit.plan import Plan
from prunekit.plugins import Samples
from prunekit.recipes.stages import Prune
from prunekit.scorers import Scored, Scorer, Statistics
from prunekit.selection import How

HEADS = "attention.heads"


@dataclass(frozen=True)
class Batches(Sequence[Sample]):
    """The first ``limit`` samples, each encoded when it is asked for: a thousand large images do not fit in memory."""

    samples: Samples
    limit: int

    def __len__(self) -> int:
        return min(self.limit, len(self.samples))

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Sample(Inputs((self.samples.batch([index]),)))


def structure_of(part: nn.Module, samples: Samples) -> Structure:
    """The structure of ``part`` as it stands, traced with one sample's input. Raises TraceError."""
    device = next((p.device for p in part.parameters()), torch.device("cpu"))
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
) -> tuple[Plan, dict[str, Any]]:
    """Prune ``part`` in place as ``stage`` says; the plan that did it, and what its verification found.

    Widths are rounded down to a multiple of their alignment. Raises RecipeError where a role of the stage has no group,
    and what ``prunekit.plan`` raises.
    """
    roles = reached(structure, stage)
    groups = choose(structure, roles=roles)
    statistics = Statistics(
        part,
        Batches(samples, int(settings["images"])),
        parameters={member.tensor for group in groups for member in group.parameters},
        progress=progress,
    )
    heads = head_count(structure)
    how = How(
        ranking=cast(Any, settings["ranking"]),
        align={role: heads if step == "heads" else int(step) for role, step in stage.align.items()} or None,
        normaliser=str(settings["normaliser"]),
        pools=stage.pools or None,
        rounding="down" if stage.pools else "nearest",
    )
    scored = Scored.of(scorer, groups, statistics)
    made = draft(part, structure, Request(scored, ratio, roles=roles, how=how, seed=int(settings["seed"])))
    apply(part, made.plan)
    verified: dict[str, Any] = {"shapes": "passed", "symmetry": "not run: too many multiply-adds"}
    if made.symmetry is not None:
        verified["symmetry"] = "passed" if made.symmetry.passed else "broken groups left alone"
        verified["symmetry_error"] = made.symmetry.error
    return made.plan, verified


def reached(structure: Structure, stage: Prune) -> list[str] | None:
    """The roles that the stage prunes; None leaves the choice to the toolkit."""
    if not stage.pools:
        return None
    roles = {group.role for group in structure.groups}
    wanted = [role for pool in stage.pools for role in pool]
    if missing := [role for role in wanted if role not in roles]:
        frozen = "; ".join(f"{f.name}: {f.reason}" for f in structure.frozen[:3])
        raise RecipeError(
            f"the model has no group with the role {', '.join(missing)}",
            where=stage.title,
            hint=f"its roles: {', '.join(sorted(roles)) or 'none'}" + (f"; frozen: {frozen}" if frozen else ""),
        )
    return wanted


def head_count(structure: Structure) -> int:
    """What all numbers of attention heads in the model are multiples of; 1 without attention."""
    return math.gcd(*(group.size for group in structure.groups if group.role == HEADS)) or 1
