"""A latency limit held against the clock where sets are measured or depth goes: the whole choice is made again.

``on_the_clock`` corrects a limit for one ranking of units. A search by measured damage needs it more: of two widths
that damage alike it takes the one that the table of operators believes to be quicker, so errors of the table add up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from prunekit.coupling.structure import Structure
from prunekit.errors import BudgetError, SelectionError
from prunekit.options import Options
from prunekit.options.measured import as_measured
from prunekit.planning.aiming import is_timed
from prunekit.planning.on_the_clock import MET, Timing, badness, share_of
from prunekit.planning.width_drafts import Draft
from prunekit.plans.contents import Plan
from prunekit.quantities.gauge import Baseline, Gauge

logger = logging.getLogger(__name__)

CHOICES = 3  # that are made at most: each is a search

Make = Callable[[Options, Baseline], Draft]


def clocked_draft(model: nn.Module, structure: Structure, options: Options, baseline: Baseline, make: Make) -> Draft:
    """What ``make`` drafts, held against the clock; as it is where no latency is limited, or not in one step.

    Every further choice is made with a pace at which the one before would have been foretold as it was timed. The
    nearest to the limit is taken, one within it before one that passes it. Raises what the first choice does.
    """
    target, pace = options.scope.target, baseline.pace
    if target is None or pace is None or not is_timed(structure, options, baseline):
        return make(options, baseline)
    limit = Gauge.of(model, structure, target, baseline).limits[pace.quantity]
    best: tuple[Draft, Timing] | None = None
    known: list[Plan] = []
    believed = pace
    with _recalling(options) as asked:
        while len(known) < CHOICES:
            try:
                made = make(asked, replace(baseline, pace=believed, is_held=True))
            except (BudgetError, SelectionError) as error:
                if best is None:
                    raise
                logger.info("within the corrected limit nothing is to be had: %s", error.what)
                break
            if made.plan in known or not _takes(made.plan):
                break
            known.append(made.plan)
            share, noise = share_of(model, made.plan, structure, pace)
            timing = Timing(share, noise, share * pace.whole / limit - 1, len(known), pace.quantity)
            logger.info("%s", timing)
            if best is None or badness(timing) < badness(best[1]):
                best = made, timing
            foretold = believed.seconds(made.structure, made.kept)
            if MET[0] <= timing.off <= MET[1] or foretold <= 0:
                break
            believed = replace(believed, factor=believed.factor * share * pace.whole / foretold)
    if best is None:
        return made
    taken, timing = best
    timing = replace(timing, rounds=len(known))
    return replace(taken, timing=timing, remarks=(*taken.remarks, str(timing)))


def _takes(plan: Plan) -> bool:
    return bool(plan.cuts or plan.removals or plan.absences)


@contextmanager
def _recalling(options: Options) -> Iterator[Options]:
    """The options, with damages kept from one choice to the next where they are named, and nowhere else afterwards."""
    how = as_measured(options.choice.allocation)
    if how is None or how.store is not None or callable(how.damage):
        yield options
        return
    with TemporaryDirectory() as folder:
        yield options.replaced(allocation=replace(how, store=Path(folder) / "damages.json"))
