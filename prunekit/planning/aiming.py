"""What a target is aimed at with: groups left whole where the model refuses, a time corrected by the clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from prunekit.coupling.groups import Frozen, Group
from prunekit.coupling.structure import Structure
from prunekit.options import Options
from prunekit.planning.settling import Settled, settled_within
from prunekit.planning.targeted import filled_up, select_for_target
from prunekit.planning.variants import Attainable
from prunekit.plugins.homes import Words
from prunekit.quantities.gauge import Baseline, Gauge
from prunekit.selection import Conditions

Aim = Callable[[Sequence[Group], Conditions], dict[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Fixed:
    """All that stays the same while one target is aimed at again with other limits."""

    model: nn.Module
    structure: Structure
    chosen: Sequence[Group]
    scores: Mapping[str, Tensor]
    conditions: Conditions
    words: Words | None

    def __call__(self, gauge: Gauge) -> tuple[Settled | None, list[Frozen]]:
        aim = partial(_ranked, self.structure, gauge, self.scores)
        return within_target(self.model, self.structure, self.chosen, self.scores, self.conditions, aim, self.words)


def is_timed(structure: Structure, options: Options, baseline: Baseline) -> bool:
    """Whether a plan is held against the clock: in one step from the very model that the limit speaks of.

    Widths that must be even, or that are a step on the way, are left where the table of operators puts them; and those
    of which the caller holds a larger plan against the clock.
    """
    one_step = options.cutting.steps == 1 and not options.choice.uniform and not baseline.is_held
    return one_step and baseline.pace is not None and baseline.is_of(structure)


def within_target(
    model: nn.Module,
    structure: Structure,
    chosen: Sequence[Group],
    scores: Mapping[str, Tensor],
    conditions: Conditions,
    aim: Aim,
    words: Words | None,
) -> tuple[Settled | None, list[Frozen]]:
    """The plan of what ``aim`` chooses, and what was left whole: ``aim`` is asked again for ever fewer groups."""

    def aimed(groups: Sequence[Group]) -> dict[str, Tensor]:
        return aim(groups, conditions if len(groups) == len(chosen) else conditions.about(groups))

    return settled_within(model, structure, chosen, aimed, scores, words)


def _ranked(
    structure: Structure, gauge: Gauge, scores: Mapping[str, Tensor], groups: Sequence[Group], conditions: Conditions
) -> dict[str, Tensor]:
    return select_for_target(structure, groups, scores=scores, gauge=gauge, conditions=conditions)


def as_wanted(
    structure: Structure,
    gauge: Gauge,
    scores: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    groups: Sequence[Group],
    conditions: Conditions,
) -> dict[str, Tensor]:
    """The wanted units of ``groups``, widened as far as the limits allow; by ranking where they do not meet them."""
    widths = Attainable.of(structure, groups, scores, conditions)
    kept = widths.agreed({group.name: wanted[group.name] for group in groups if group.name in wanted})
    if not gauge.met(gauge.exactly(kept)):
        return _ranked(structure, gauge, scores, groups, conditions)
    return filled_up(structure, kept, widths.allocations, scores, gauge)
