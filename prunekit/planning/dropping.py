"""Units of depth as variants beside widths: what a mixed-integer program over both proposes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunekit.allocation.costing import Costs, Dropped, with_dropped
from prunekit.allocation.measuring import Meter, Progress
from prunekit.allocation.program import Solution, solved_program
from prunekit.allocation.sites import Site, kept_by
from prunekit.coupling.cost import CostTerm, measure_ops
from prunekit.coupling.groups import Group, Member
from prunekit.coupling.structure import Structure
from prunekit.options.measured import Measured
from prunekit.planning.variants import Attainable
from prunekit.plans.contents import Plan
from prunekit.plans.renaming import Renaming
from prunekit.quantities.gauge import Gauge, fields_of
from prunekit.quantities.plan_cost import map_terms
from prunekit.removal.covering import Cover, Unit

logger = logging.getLogger(__name__)

_POWERS_OF_BOTH = (1.0, 0.5, 0.25, 2.0)  # of the single damages, as for widths alone
_AIMS = 12  # of aiming lower, where what three sites share makes a set cost more than the program says

Damages = Sequence[NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Proposal:
    """Units of depth that go and units of widths that stay, within the limits: what a program chose.

    In the place of those of ``gone`` that are in ``mapped`` stands an affine map.
    """

    name: str
    gone: tuple[Unit, ...]
    kept: Mapping[str, Tensor]
    mapped: frozenset[Unit] = frozenset()


@dataclass(frozen=True, eq=False)
class Drop:
    """A unit of depth, the plan that drops it alone, and the one that puts a map in its place, where one may stand."""

    unit: Unit
    plan: Plan
    mapped: Plan | None = None


@dataclass(frozen=True, eq=False)
class _Common:
    """What stays the same from one program to the next."""

    widths: Attainable
    sites: Sequence[Site]
    gauge: Gauge
    how: Measured


@dataclass(eq=False)
class Dropping:
    """What may be dropped; ``proposals`` are sets of these and of widths.

    ``most`` is how many units of each group may go, ``told`` what the program says of itself, ``scores`` those of the
    widths.
    """

    drops: Sequence[Drop]
    cover: Cover
    most: Mapping[str, int]
    proposals: list[Proposal] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    scores: Mapping[str, Tensor] = field(default_factory=dict)

    def propose(
        self,
        widths: Attainable,
        sites: Sequence[Site],
        damages: Damages,
        gauge: Gauge,
        how: Measured,
        meter: Meter,
        progress: Progress | None,
    ) -> None:
        """Solves the program over ``sites`` and what may be dropped, under several powers of the damages.

        Where maps may stand for some, once without and once with them: what is proposed without is proposed with, too.
        """
        self.scores = widths.scores
        if not gauge.is_counted or not self.drops:  # a time is no sum over what is left
            return
        asked = _Common(widths, sites, gauge, how)
        alone = meter.damages([drop.plan for drop in self.drops], None, progress)
        self._among(asked, damages, [[damage] for damage in alone], [])
        maps = [drop.mapped for drop in self.drops]
        if any(plan is not None for plan in maps):
            stand = [[] if plan is None else [meter.whole(plan)] for plan in maps]
            self._among(asked, damages, [[a, *m] for a, m in zip(alone, stand, strict=True)], maps)

    def _among(
        self, asked: _Common, damages: Damages, of_drops: Sequence[Sequence[float]], maps: Sequence[Plan | None]
    ) -> None:
        """Proposes sets of widths and of drops with these damages, each gone or with a map in its place."""
        sites, structure = asked.sites, asked.widths.structure
        every = [*damages, *(np.array([0.0, *row]) for row in of_drops)]
        left = [self._left(structure, [drop.unit]) for drop in self.drops]
        terms = [_map_of(structure, plan) for plan in maps] or [()] * len(left)
        drops = [Dropped(structure.depth.gone(kept), each) for kept, each in zip(left, terms, strict=True)]
        costs = with_dropped(Costs.of(structure, sites, asked.gauge), structure, sites, drops)
        without: list[tuple[int, ...]] = []
        for power in _POWERS_OF_BOTH[: asked.how.sets]:
            found = self._solved(asked, [row**power for row in every], costs, terms, without)
            if found is None:
                continue
            made, solution = found
            if not without:
                can = sum(plan is not None for plan in maps)
                self.told.append(
                    f"the program over {len(sites)} widths and {len(self.drops)} blocks and branches"
                    f"{f', a map in the place of {can}' if can else ''}: summed damage "
                    f"{solution.damage:.4g}, no set less than {solution.bound:.4g} (gap {solution.gap:.2%})"
                )
            without.append(solution.choice)
            if made.gone and (made.mapped or not maps):
                self.proposals.append(made)

    def _solved(
        self,
        asked: _Common,
        damages: Damages,
        costs: Costs,
        maps: Sequence[Sequence[CostTerm]],
        without: Sequence[tuple[int, ...]],
    ) -> tuple[Proposal, Solution] | None:
        """What is within the limits by its true cost, and the program's answer."""
        gauge, structure, first = asked.gauge, asked.widths.structure, len(asked.sites)
        aimed = dict(gauge.limits)
        for _ in range(_AIMS):
            caps, nodes = self._caps(first), asked.how.solutions
            solution = solved_program(damages, costs, aimed, without=without, caps=caps, nodes=nodes)
            if solution is None:
                return None
            kept = asked.widths.agreed(kept_by(asked.sites, solution.choice[:first]))
            picked = {drop.unit: at for drop, at in zip(self.drops, solution.choice[first:], strict=True) if at}
            gone = self.cover.outermost(list(picked))
            mapped = frozenset(unit for unit in gone if picked[unit] > 1)
            stand = tuple(x for drop, terms in zip(self.drops, maps, strict=True) if drop.unit in mapped for x in terms)
            usage = gauge.exactly({**kept, **self._left(structure, gone)})
            more = fields_of(measure_ops(stand, structure.shapes(kept) if stand else {}))
            usage = {quantity: amount + more[quantity] for quantity, amount in usage.items()}
            if gauge.met(usage):
                return Proposal(f"program {len(self.proposals) + 1}", tuple(gone), kept, mapped), solution
            for name, most in gauge.limits.items():
                if usage[name] > most:
                    aimed[name] *= min(most / usage[name], 0.999)
        return None

    def _left(self, structure: Structure, gone: Sequence[Unit]) -> dict[str, Tensor]:
        """What is left of the groups of depth."""
        out = set(self.cover.closed(gone))
        left = {name: range(structure.depth.group(name).size) for name, _ in out}
        return {
            name: torch.tensor([u for u in units if (name, u) not in out], dtype=torch.int64, device="cpu")
            for name, units in left.items()
        }

    def _caps(self, first: int) -> list[tuple[list[int], int]]:
        of_group: dict[str, list[int]] = {}
        for number, drop in enumerate(self.drops):
            of_group.setdefault(drop.unit[0], []).append(first + number)
        return [(numbers, self.most[name]) for name, numbers in of_group.items() if len(numbers) > self.most[name]]


def _map_of(structure: Structure, plan: Plan | None) -> tuple[CostTerm, ...]:
    absences = [] if plan is None else [each for each in plan.absences if each.has_map]
    return tuple(term for absence in absences for term in map_terms(structure, absence))


def carried(left: Structure, original: Structure, plan: Plan, *tables: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """``tables`` by group of ``original`` as tables by group of what ``plan`` leaves of it.

    A group is the one that runs through the same axis of a tensor in the same units; one that is not found is missing.
    """
    names = Renaming(plan.removals, plan.absences)
    through: dict[tuple[str, int], list[tuple[Group, Member]]] = {}
    for group in original.groups:
        for member in group.members:
            through.setdefault((member.tensor, member.axis), []).append((group, member))
    found: list[dict[str, Tensor]] = [{} for _ in tables]
    for group in left.groups:
        was = next((g for m in group.members for g in _same_units(m, group, through, names)), None)
        for table, made in zip(tables, found, strict=True):
            if was is not None and was.name in table:
                made[group.name] = table[was.name]
    return found


def _same_units(
    member: Member, group: Group, through: Mapping[tuple[str, int], Sequence[tuple[Group, Member]]], names: Renaming
) -> Iterator[Group]:
    """Groups of the original that cut the axis of a member into the same units."""
    for was, own in through.get((names.was(member.tensor), member.axis), ()):
        if was.size == group.size and torch.equal(own.unit_of, member.unit_of):
            yield was
