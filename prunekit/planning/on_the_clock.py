"""A latency limit held against the clock: the pruned model is timed beside the original, and the limit is corrected.

A table of operators predicts within some tenths of the truth: what lies between operators shrinks too, and kernels run
otherwise alone than in a model. One factor of a table cannot say it, since it is not the same at other widths.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from prunekit.coupling.groups import Frozen
from prunekit.coupling.structure import Structure
from prunekit.errors import BudgetError, SelectionError
from prunekit.planning.settling import Settled
from prunekit.plans.contents import Plan
from prunekit.quantities.gauge import Gauge
from prunekit.quantities.latency_table import Pace
from prunekit.quantities.stopwatch import Clock, Turn, seconds_of_calls
from prunekit.surgery.cutting import applied

logger = logging.getLogger(__name__)

PAIRS, MOST_PAIRS = 7, 25  # that a plan is timed: the pruned model between two timings of the original
SURE = 0.01  # of a latency: pairs go on until the error of their median is less
ROUNDS = 5  # plans that are made at most for one target
MET = (-0.03, 0.01)  # beside the limit, as a part of it: what counts as met

Found = tuple[Settled | None, list[Frozen]]


@dataclass(frozen=True)
class Timing:
    """What the clock said of a plan.

    Attributes:
        share: latency of the pruned model as a part of the original's, the median over pairs.
        noise: standard error of that median, by the distance between the quartiles, as a part of ``share``.
        off: how far that is from the limit, as a part of it: above 0 where it takes longer.
        rounds: plans that were made and timed.
        quantity: what was timed, by its name in a target.
    """

    share: float
    noise: float
    off: float
    rounds: int = 1
    quantity: str = "latency"

    def __str__(self) -> str:
        how = "within" if self.off <= max(MET[1], self.noise) else "over"
        plans = f"{self.rounds} plan{'s' if self.rounds > 1 else ''} timed"
        return (
            f"{self.quantity}: {self.share:.1%} of the original's, {self.off:+.1%} beside the limit ({how} it), "
            f"noise {self.noise:.1%}, {plans}"
        )


def share_of(model: nn.Module, plan: Plan, structure: Structure, pace: Pace) -> tuple[float, float]:
    """Latency with ``plan`` as a part of that without, and its noise; the model is left bit for bit as it was.

    Each timing of the pruned model is divided by the geometric mean of the two around it, which cancels a steady drift.
    """
    found: list[float] = []
    timer = Turn() if isinstance(pace.table.timer, Clock) else pace.table.timer
    with applied(model, plan):
        pruned = pace.prepared(model, structure.inputs)
    before = seconds_of_calls(pace.call, model, timer)
    while len(found) < PAIRS or (len(found) < MOST_PAIRS and _median_error(found) > SURE):
        with applied(model, plan):
            here = seconds_of_calls(pruned, model, timer)
        after = seconds_of_calls(pace.call, model, timer)
        found.append(here / math.sqrt(before * after))
        before = after
    return statistics.median(found), _median_error(found)


def _median_error(found: Sequence[float]) -> float:
    """Of the median, relative: 1.25 standard deviations by the root of the number, of which quartiles span 1.35."""
    low, middle, high = statistics.quantiles(found, n=4, method="inclusive")
    return 1.25 * (high - low) / 1.35 / math.sqrt(len(found)) / middle


def met_on_the_clock(
    model: nn.Module, structure: Structure, gauge: Gauge, attempt: Callable[[Gauge], Found]
) -> tuple[Found, Timing | None]:
    """The plan for ``gauge`` whose measured latency comes nearest to the limit, out of a few.

    ``attempt`` plans within a gauge; it is given one whose latency limit is larger or smaller by what the clock said of
    the plan before. A plan within the limit is taken before one that passes it. No timing where nothing is cut. Raises
    what the first attempt does.
    """
    assert gauge.pace is not None
    limit = aimed = gauge.limits[gauge.pace.quantity]
    best: tuple[Found, Timing] | None = None
    known: list[Plan] = []
    bracket: dict[bool, tuple[float, float]] = {}  # whether it took too long -> what was aimed at, and what it took
    for number in range(1, ROUNDS + 1):
        try:
            found = attempt(replace(gauge, limits={**gauge.limits, gauge.pace.quantity: aimed}))
        except (BudgetError, SelectionError) as error:
            if best is None:
                raise
            logger.info("the corrected limit is out of reach: %s", error.what)
            break
        if found[0] is None or not found[0][0].cuts:
            if best is None:
                return found, None
            break
        made, kept, _ = found[0]
        if made in known:
            break
        known.append(made)
        share, noise = share_of(model, made, structure, gauge.pace)
        took = share * gauge.pace.whole
        timing = Timing(share, noise, took / limit - 1, number, gauge.pace.quantity)
        logger.info("%s", timing)
        if best is None or badness(timing) < badness(best[1]):
            best = found, timing
        if MET[0] <= timing.off <= MET[1]:
            break
        too_long = took > limit
        if too_long not in bracket or abs(took - limit) < abs(bracket[too_long][1] - limit):
            bracket[too_long] = aimed, took  # the nearest on each side: a later plan may be further off than an earlier
        before, aimed = aimed, limit * gauge.pace.seconds(structure, kept) / took
        if len(bracket) == 2:
            aimed = _interpolated(*bracket[False], *bracket[True], limit)
        elif timing.off < 0 and aimed <= before:
            break  # it is the widths' steps, or another limit, and not the prediction
    assert best is not None
    found, timing = best
    return found, replace(timing, rounds=len(known))


def _interpolated(low: float, short: float, high: float, long: float, limit: float) -> float:
    """Where a line through two plans meets the limit; their middle where the clock contradicts the order."""
    return low + (high - low) * (limit - short) / (long - short) if high > low else (low + high) / 2


def badness(timing: Timing) -> float:
    """How far from the limit; what passes it counts thrice."""
    return -timing.off if timing.off < 0 else 3 * max(0.0, timing.off - MET[1]) + timing.off
