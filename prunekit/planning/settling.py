"""The largest set of groups that the model's own code can follow, at a ratio or within a target."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from prunekit.coupling.groups import Frozen, Group
from prunekit.coupling.structure import Structure
from prunekit.errors import PlanError, TraceError, VerificationError
from prunekit.options.types import Ratio
from prunekit.planning.folds import Note, with_folds
from prunekit.planning.reconciling import reconcile
from prunekit.planning.rehearsal import rehearse
from prunekit.planning.solving import make_plan
from prunekit.planning.wording import number_edits
from prunekit.plans.contents import Plan
from prunekit.plugins.homes import Words
from prunekit.selection import Conditions, select
from prunekit.selection.ratio import narrowed
from prunekit.tracing.collector import paused_collector

logger = logging.getLogger(__name__)

_ATTEMPTS = 60  # rounds of excluding groups whose sizes the model's own code cannot follow

Settled = tuple[Plan, dict[str, Tensor], tuple[Note, ...]]
Settle = Callable[[Sequence[Group]], Settled]


@paused_collector()
def settled_at(
    model: nn.Module,
    structure: Structure,
    chosen: Sequence[Group],
    *,
    scores: Mapping[str, Tensor],
    ratio: Ratio,
    conditions: Conditions,
    candidates: int,
    words: Words | None = None,
) -> Settled:
    """Selects, solves and rehearses one set of groups, out of so many ``candidates``, at a ratio.

    Raises what stands in the way.
    """
    if len(chosen) < candidates:  # what was asked may speak of groups that have been left out since
        ratio, conditions = narrowed(ratio, chosen), conditions.about(chosen)
    kept = select(chosen, structure.ties, scores, ratio, conditions)
    return planned(model, structure, reconcile(structure, chosen, kept, scores), words)


@paused_collector()
def planned(model: nn.Module, structure: Structure, kept: dict[str, Tensor], words: Words | None) -> Settled:
    """The plan that keeps these units, rehearsed. Raises what stands in the way."""
    made = make_plan(model, structure, kept)
    done, notes = with_folds(made, structure, rehearse(model, structure, made, kept))
    edits = () if words is None else number_edits(model, structure, made, words)
    if edits:
        made = replace(made, edits=(*made.edits, *edits))
        try:
            other, more = with_folds(made, structure, rehearse(model, structure, made, kept))
        except (PlanError, TraceError, VerificationError) as error:
            logger.info("the numbers that the configuration gives are not taken over: %s", error.what)
        else:
            done = other if set(more) <= set(notes) else done  # a constant that no fold undoes stays as it is
    return done, kept, notes


def settled_within(
    model: nn.Module,
    structure: Structure,
    chosen: Sequence[Group],
    aim: Callable[[Sequence[Group]], dict[str, Tensor]],
    scores: Mapping[str, Tensor],
    words: Words | None = None,
) -> tuple[Settled | None, list[Frozen]]:
    """The target over all groups; without those that the model's own code does not follow at the widths it takes."""
    refused: list[Frozen] = []
    groups = tuple(chosen)
    while groups:
        kept = aim(groups)
        try:
            return planned(model, structure, kept, words), refused
        except (PlanError, TraceError, VerificationError) as error:
            logger.info("the target is aimed at again without the groups that the model cannot follow: %s", error.what)
            failed: Exception = error

        def settle(some: Sequence[Group], kept: Mapping[str, Tensor] = kept) -> Settled:
            agreed = reconcile(structure, some, {g.name: kept[g.name] for g in some}, scores)
            return planned(model, structure, agreed, words)

        _, left_out = largest_settled(groups, settle)
        if not left_out:
            raise failed
        refused += left_out
        names = {frozen.name for frozen in left_out}
        groups = tuple(group for group in groups if group.name not in names)
    return None, refused


def largest_settled(chosen: Sequence[Group], settle: Settle) -> tuple[Settled | None, list[Frozen]]:
    """The largest set of groups that the model's own code can follow, grown by halves, and who was refused and why."""
    refused: list[Frozen] = []
    accepted: list[Group] = []
    best: Settled | None = None
    budget = _ATTEMPTS

    def grow(candidates: Sequence[Group]) -> None:
        nonlocal best, budget
        if not candidates:
            return
        budget -= 1
        names = {g.name for g in (*accepted, *candidates)}
        try:
            best = settle([g for g in chosen if g.name in names])
            accepted.extend(candidates)
            return
        except (PlanError, TraceError, VerificationError) as error:
            if len(candidates) == 1 or budget <= 0:
                refused.extend(Frozen(g.name, g.size, error.what, error.where) for g in candidates)
                return
        half = len(candidates) // 2
        grow(candidates[:half])
        grow(candidates[half:])

    grow(sorted(chosen, key=lambda g: (g.role.settled, g.role)))
    return best, refused
