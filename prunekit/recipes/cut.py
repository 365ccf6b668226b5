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
from prunekit.compensate import compensation
from prunekit.coupling.structure import Structure
from prunekit.draft import Draft, Request, choose, draft
from prunekit.errors import RecipeError
from prunekit.inputs import Inputs, Sample
from prunekit.plan import Plan
from prunekit.plugins import Samples
from prunekit.recipes.stages import Prune
from prunekit.scorers import Scored, Scorer, Statistics
from prunekit.selection import How
from prunekit.selection.ratio import Align, Ratio
from prunekit.selection.target import Target
from prunekit.targeted import Baseline

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


@dataclass(frozen=True)
class Asked:
    """What a prune stage is to do: by what criterion, how much and where; ``settings`` are the recipe's.

    ``baseline`` and ``sizes``: what relative targets and partial ratios refer to; see ``recipes/goal.py``.
    """

    scorer: Scorer
    ratio: Ratio | None
    settings: Mapping[str, Any]
    target: Target | None = None
    include: Sequence[str] | None = None
    exclude: Sequence[str] | None = None
    baseline: Baseline | None = None
    sizes: Mapping[str, int] | None = None


Progress = Callable[[int, int], None]


def drafted(
    part: nn.Module, stage: Prune, structure: Structure, samples: Samples, asked: Asked, progress: Progress
) -> Draft:
    """The plan of ``stage`` for ``part``, which stays as it is.

    Widths of a stage that names its roles are rounded down to a multiple of their alignment. Raises RecipeError where
    one of them has no group, and what ``prunekit.plan`` raises.
    """
    roles, settings = reached(structure, stage), asked.settings
    groups = choose(structure, include=asked.include, exclude=asked.exclude, roles=roles)
    statistics = Statistics(
        part,
        Batches(samples, int(settings["images"])),
        parameters={member.tensor for group in groups for member in group.parameters},
        progress=progress,
    )
    heads = head_count(structure)
    aligned: Align = {role: heads if step == "heads" else int(step) for role, step in stage.align.items()}
    how = How(
        ranking=cast(Any, settings["ranking"]),
        align=aligned or int(settings.get("align", 0)) or None,
        normaliser=str(settings["normaliser"]),
        pools=stage.pools or None,
        rounding="down" if stage.pools else "nearest",
        sizes=asked.sizes,
    )
    request = Request(
        Scored.of(asked.scorer, groups, statistics),
        asked.ratio,
        asked.target,
        include=asked.include,
        exclude=asked.exclude,
        roles=roles,
        how=how,
        verify=cast(Any, settings.get("verify", "auto")),
        seed=int(settings["seed"]),
    )
    return draft(part, structure, request, baseline=asked.baseline)


def cut(
    part: nn.Module, stage: Prune, structure: Structure, samples: Samples, asked: Asked, progress: Progress
) -> tuple[Plan, dict[str, Any]]:
    """Prune ``part`` in place as ``stage`` says; the plan that did it, and what its verification found.

    Raises what ``drafted`` raises.
    """
    made = drafted(part, stage, structure, samples, asked, progress)
    applied(part, made.plan, samples, asked)
    return made.plan, verified_by(made)


def applied(part: nn.Module, plan: Plan, samples: Samples, asked: Asked) -> None:
    """Cuts ``part`` by ``plan``, and refits what is left where the settings say so."""
    refit = compensation(str(asked.settings.get("compensate", "")) or None)
    data = None if refit is None else [sample.inputs for sample in Batches(samples, refit.samples)]
    apply(part, plan, compensate=refit, data=data)


def verified_by(made: Draft) -> dict[str, Any]:
    """What the checks before a cut found."""
    if made.symmetry is None:
        return {"shapes": "passed", "symmetry": "not run: too many multiply-adds"}
    state = "passed" if made.symmetry.passed else "broken groups left alone"
    return {"shapes": "passed", "symmetry": state, "symmetry_error": made.symmetry.error}


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
