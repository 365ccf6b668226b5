"""Attainable within a target by measured damage: every variant of every site, the best set, and whole sets compared."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunekit.allocation.costing import Costs
from prunekit.allocation.measuring import Meter, Progress
from prunekit.allocation.program import Solution, solved_program
from prunekit.allocation.sites import Site, kept_by
from prunekit.compensation.settings import Compensation
from prunekit.coupling.groups import Group
from prunekit.coupling.structure import Structure
from prunekit.errors import PlanError, PrunekitError, TraceError, VerificationError
from prunekit.inputs import Inputs
from prunekit.options.measured import Measured
from prunekit.planning.calibration_inputs import generated_for, samples_for
from prunekit.planning.dropping import Dropping
from prunekit.planning.finite_runs import refuse_odd_samples
from prunekit.planning.settling import planned
from prunekit.planning.targeted import filled_up, select_for_target, unreachable
from prunekit.planning.variants import Attainable, sites_of
from prunekit.plans.contents import Plan
from prunekit.plugins.homes import Words
from prunekit.quantities.gauge import Gauge
from prunekit.selection import Conditions
from prunekit.surgery.mapping import MAP_SAMPLES

logger = logging.getLogger(__name__)

_ROUNDS = 12  # of aiming lower, where what three widths share makes a set cost more than the program says
_POWERS = (1.0, 0.5, 2.0, 0.25)  # of the single damages that sets are made from: damages together are not their sum
_REFUSED = (PlanError, TraceError, VerificationError)

Kept = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Choosing:
    """What a measured choice is made among, and under which conditions."""

    model: nn.Module
    structure: Structure
    scores: Mapping[str, Tensor]
    gauge: Gauge
    words: Words | None
    how: Measured
    inputs: Sequence[Inputs]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A set of widths with its plan and the damage of the whole."""

    name: str
    kept: Kept
    plan: Plan
    damage: float


@dataclass(eq=False)
class MeasuredAim:
    """Chooses units within the target for ever fewer groups, as the model's own code refuses some.

    ``remarks`` say what the last choice was made of, ``damage`` what it damages as a whole. ``dropping`` is what may go
    beside widths: it is told what was measured, and makes proposals of its own.
    """

    asked: Choosing
    meter: Meter
    remarks: list[str] = field(default_factory=list)
    progress: Progress | None = None
    damage: float | None = None
    dropping: Dropping | None = None

    def __call__(self, groups: Sequence[Group], conditions: Conditions) -> Kept:
        """Kept units of ``groups``. Raises BudgetError where the narrowest widths are too much."""
        gauge, structure = self.asked.gauge, self.asked.structure
        if gauge.met(gauge.exactly({})):
            self.damage = 0.0
            return {group.name: torch.arange(group.size, device="cpu") for group in groups}
        widths = Attainable.of(structure, groups, self.asked.scores, conditions)
        sites = self._reaching(widths)
        damages = self._damages(sites, None)
        found, solution = self._sets(widths, sites, damages, conditions)
        if self.dropping is not None:
            asked = self.asked
            self.dropping.propose(widths, sites, damages, asked.gauge, asked.how, self.meter, self.progress)
        best = min(found, key=lambda candidate: candidate.damage)
        for _ in range(self.asked.how.rounds):
            nearer = self._around(widths, best)
            if nearer is None or nearer.damage >= best.damage:
                break
            found.append(nearer)
            best = nearer
        self.damage = best.damage
        self.remarks[:] = self._told(sites, found, best, solution)
        return best.kept

    def _reaching(self, widths: Attainable) -> list[Site]:
        """Sites whose narrowest variants are within the limits; narrower ones are tried only where they must be."""
        for shares in (tuple(self.asked.how.widths), (*self.asked.how.widths, 0.125, 0.0)):
            sites = sites_of(widths, shares, self._plan)
            narrowest = widths.agreed(kept_by(sites, [len(site.variants) - 1 for site in sites]))
            usage = self.asked.gauge.exactly(narrowest)
            if self.asked.gauge.met(usage):
                return sites
        raise unreachable(self.asked.structure, widths.groups, usage, self.asked.gauge, narrowest)

    def _plan(self, kept: Mapping[str, Tensor]) -> Plan | None:
        """The plan that keeps these units, None where the model's own code does not follow."""
        try:
            return planned(self.asked.model, self.asked.structure, dict(kept), self.asked.words)[0]
        except _REFUSED as error:
            logger.info("a variant is left out: %s", error.what)
            return None

    def _damages(self, sites: Sequence[Site], base: Plan | None) -> list[NDArray[np.float64]]:
        """(variants,) damage of each site; 0 of what is whole."""
        plans = [v.plan for site in sites for v in site.variants if v.plan is not None]
        found = iter(self.meter.damages(plans, base, self.progress))
        return [np.array([0.0 if v.plan is None else next(found) for v in site.variants]) for site in sites]

    def _sets(
        self, widths: Attainable, sites: Sequence[Site], damages: Sequence[NDArray[np.float64]], conditions: Conditions
    ) -> tuple[list[Candidate], Solution | None]:
        """Whole sets with their damages: of the program under several powers, further ones, and the ranked one."""
        costs = Costs.of(self.asked.structure, sites, self.asked.gauge)
        best: Solution | None = None
        without: list[tuple[int, ...]] = []
        found: list[Candidate] = []
        for number in range(self.asked.how.sets):
            power = _POWERS[number] if number < len(_POWERS) else 1.0
            apart = 1 if number < len(_POWERS) else max(1, len(sites) // 8)
            made = self._solved(widths, sites, [d**power for d in damages], costs, without, apart)
            if made is None:
                continue
            kept, solution = made
            best = best or solution
            without.append(solution.choice)
            found += self._candidate(f"program {number + 1}", kept)
        asked = self.asked
        try:
            ranked = select_for_target(asked.structure, widths.groups, asked.scores, asked.gauge, conditions)
            found += self._candidate("ranked", ranked)
        except PrunekitError as error:
            logger.info("the ranked set is no candidate: %s", error.what)
        if not found:  # the narrowest is within the limits, so at least it is there
            narrowest = widths.agreed(kept_by(sites, [len(site.variants) - 1 for site in sites]))
            planned(asked.model, asked.structure, narrowest, asked.words)  # tells why
            raise unreachable(asked.structure, widths.groups, asked.gauge.exactly(narrowest), asked.gauge, narrowest)
        return found, best

    def _solved(
        self,
        widths: Attainable,
        sites: Sequence[Site],
        damages: Sequence[NDArray[np.float64]],
        costs: Costs,
        without: Sequence[tuple[int, ...]],
        apart: int,
    ) -> tuple[Kept, Solution] | None:
        """Units within the limits by their true cost, and the program's first answer."""
        gauge, first = self.asked.gauge, None
        aimed = dict(gauge.limits)
        for _ in range(_ROUNDS):
            nodes = self.asked.how.solutions
            solution = solved_program(damages, costs, aimed, without=without, apart=apart, nodes=nodes)
            if solution is None:
                return None
            first = first or solution
            kept = widths.agreed(kept_by(sites, solution.choice))
            usage = gauge.exactly(kept)
            if gauge.met(usage):
                order = sorted(widths.allocations, key=lambda a: -_slope(a.groups[0], sites, damages, solution.choice))
                return filled_up(self.asked.structure, kept, order, self.asked.scores, gauge), first
            for name, most in gauge.limits.items():
                if usage[name] > most:
                    aimed[name] *= min(most / usage[name], 0.999)
        return None

    def _candidate(self, name: str, kept: Kept) -> list[Candidate]:
        plan = self._plan(kept)
        if plan is None:
            return []
        damage = self.meter.whole(plan)
        logger.info("%s: damage %.6g", name, damage)
        return [Candidate(name, kept, plan, damage)]

    def _around(self, widths: Attainable, best: Candidate) -> Candidate | None:
        """The set that the program finds among widths next to those of ``best``, measured with all others as there."""
        sites = widths.near(best.kept, self._plan)
        if not sites:
            return None
        damages = self._damages(sites, best.plan)
        costs = Costs.of(self.asked.structure, sites, self.asked.gauge)
        made = self._solved(widths, sites, damages, costs, [], 1)
        found = [] if made is None else self._candidate(f"around {best.name}", made[0])
        return found[0] if found else None

    def _told(
        self, sites: Sequence[Site], found: Sequence[Candidate], best: Candidate, solution: Solution | None
    ) -> list[str]:
        bill = self.meter.bill
        inputs = sum(1 for _ in self.asked.inputs)
        each = f", {bill.passes / bill.plans:.2f} a plan" if bill.plans else ""
        sums = self.meter.sums
        refits = "" if sums is None else f"; refits read {len(sums.samples)} inputs {sums.sweeps} times"
        lines = [
            f"measured allocation: {len(sites)} sites, {bill.plans} plans measured on {inputs} inputs in "
            f"{bill.passes:.1f} forward passes{each}; {bill.recalled} recalled{refits}"
        ]
        if solution is not None:
            lines.append(
                f"the program's set has a summed damage of {solution.damage:.4g}, no set less than "
                f"{solution.bound:.4g} (gap {solution.gap:.2%})"
            )
        told = ", ".join(f"{candidate.name} {candidate.damage:.4g}" for candidate in found)
        lines.append(f"whole sets measured: {told}; {best.name} is taken")
        return lines


def _slope(group: str, sites: Sequence[Site], damages: Sequence[NDArray[np.float64]], choice: Sequence[int]) -> float:
    """What the next wider variant of a group's site would spare, of the share that it adds."""
    for site, row, number in zip(sites, damages, choice, strict=True):
        if group in site.groups and number > 0:
            wider = site.variants[number - 1].share - site.variants[number].share
            spared = float(row[number] - row[number - 1])
            return spared / max(wider, 1e-9) if np.isfinite(spared) else float("inf")
    return 0.0


def measured_inputs(
    model: nn.Module, structure: Structure, data: Iterable[Any] | None, how: Measured, seed: int
) -> list[Inputs]:
    """The samples that damage is measured on: the first of ``data``, or generated ones with a notice."""
    if data is None:
        logger.warning("no data given: damage is measured on %d generated inputs; pass data= for better", how.samples)
        return generated_for(model, structure.inputs, how.samples, seed)
    given = [sample.inputs for sample in samples_for(model, data, structure.inputs, how.samples)]
    return refuse_odd_samples(model, given)


def calibration(
    model: nn.Module,
    structure: Structure,
    data: Iterable[Any] | None,
    refit: Compensation | None,
    seed: int,
    more: int = 0,
) -> list[Inputs]:
    """The samples that a refit sees, and affine maps are fitted on: the first of ``data``, or generated ones.

    ``more`` are so many beyond what is asked for.
    """
    count = more + (refit.samples if refit is not None else MAP_SAMPLES)
    if data is None:
        return generated_for(model, structure.inputs, count, seed)
    return refuse_odd_samples(model, [sample.inputs for sample in samples_for(model, data, structure.inputs, count)])


def other_samples(
    model: nn.Module,
    structure: Structure,
    data: Iterable[Any] | None,
    refit: Compensation | None,
    seed: int,
    measured: Sequence[Inputs],
) -> list[Inputs]:
    """What affine maps and refits are fitted on: other samples than the ``measured`` ones, where there are any.

    A fit looks better than it is on what it was fitted to.
    """
    found = calibration(model, structure, data, refit, seed, len(measured))
    return found[len(measured) :] or found
