"""Units of depth as variants beside widths: what a mixed-integer program over both proposes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunekit.allocation.costing import Costs, with_dropped
from prunekit.allocation.measuring import Meter, Progress
from prunekit.allocation.program import Solution, solved_program
from prunekit.allocation.sites import Site, kept_by
from prunekit.coupling.groups import Group, Member
from prunekit.coupling.structure import Structure
from prunekit.options.measured import Measured
from prunekit.planning.variants import Attainable
from prunekit.plans.contents import Plan
from prunekit.plans.renaming import Renaming
from prunekit.quantities.gauge import Gauge
from prunekit.removal.covering import Cover, Unit

logger = logging.getLogger(__name__)

_POWERS_OF_BOTH = (1.0, 0.5, 0.25, 2.0)  # of the single damages, as for widths alone
_AIMS = 12  # of aiming lower, where what three sites share makes a set cost more than the program says

Damages = Sequence[NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Proposal:
    """Units of depth that go and units of widths that stay, within the limits: what a program chose."""

    name: str
    gone: tuple[Unit, ...]
    kept: Mapping[str, Tensor]


@dataclass(eq=False)
class Dropping:
    """Units of depth with the plan that drops each alone; ``proposals`` are sets of these and of widths.

    ``most`` is how many units of each group may go, ``told`` what the program says of itself, ``scores`` those of the
    widths.
    """

    drops: Sequence[tuple[Unit, Plan]]
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
        """Solves the program over ``sites`` and what may be dropped, under several powers of the damages."""
        self.scores = widths.scores
        if "latency" in gauge.limits or not self.drops:  # a time is no sum over what is left
            return
        alone = meter.damages([plan for _, plan in self.drops], None, progress)
        every = [*damages, *(np.array([0.0, damage]) for damage in alone)]
        places = [widths.structure.depth.gone(self._left(widths.structure, [unit])) for unit, _ in self.drops]
        costs = with_dropped(Costs.of(widths.structure, sites, gauge), widths.structure, sites, places)
        without: list[tuple[int, ...]] = []
        for power in _POWERS_OF_BOTH[: how.sets]:
            found = self._solved(widths, sites, [row**power for row in every], costs, gauge, without, how.solutions)
            if found is None:
                continue
            made, solution = found
            if not without:
                self.told.append(
                    f"the program over {len(sites)} widths and {len(self.drops)} blocks and branches: summed damage "
                    f"{solution.damage:.4g}, no set less than {solution.bound:.4g} (gap {solution.gap:.2%})"
                )
            without.append(solution.choice)
            if made.gone:
                self.proposals.append(made)

    def _solved(
        self,
        widths: Attainable,
        sites: Sequence[Site],
        damages: Damages,
        costs: Costs,
        gauge: Gauge,
        without: Sequence[tuple[int, ...]],
        nodes: int,
    ) -> tuple[Proposal, Solution] | None:
        """What is within the limits by its true cost, and the program's answer."""
        aimed = dict(gauge.limits)
        for _ in range(_AIMS):
            caps = self._caps(len(sites))
            solution = solved_program(damages, costs, aimed, without=without, caps=caps, nodes=nodes)
            if solution is None:
                return None
            kept = widths.agreed(kept_by(sites, solution.choice[: len(sites)]))
            picked = zip(self.drops, solution.choice[len(sites) :], strict=True)
            gone = self.cover.outermost([unit for (unit, _), variant in picked if variant])
            usage = gauge.exactly({**kept, **self._left(widths.structure, gone)})
            if gauge.met(usage):
                return Proposal(f"program {len(self.proposals) + 1}", tuple(gone), kept), solution
            for name, most in gauge.limits.items():
                if usage[name] > most:
                    aimed[name] *= min(most / usage[name], 0.999)
        return None

    def _left(self, structure: Structure, gone: Sequence[Unit]) -> dict[str, Tensor]:
        """What is left of the groups of depth."""
        out = set(self.cover.closed(gone))
        left = {name: range(structure.depth.group(name).size) for name, _ in out}
        return {
            name: torch.tensor([u for u in units if (name, u) not in out], dtype=torch.int64)
            for name, units in left.items()
        }

    def _caps(self, first: int) -> list[tuple[list[int], int]]:
        of_group: dict[str, list[int]] = {}
        for number, ((name, _), _) in enumerate(self.drops):
            of_group.setdefault(name, []).append(first + number)
        return [(numbers, self.most[name]) for name, numbers in of_group.items() if len(numbers) > self.most[name]]


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
