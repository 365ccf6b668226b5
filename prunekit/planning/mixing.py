"""One target for depth and widths: whole sets of what goes, however each was found, and the one that damages least."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from prunekit.allocation.measuring import Meter
from prunekit.errors import NothingToPruneError, PlanError, PrunekitError, SelectionError, VerificationError
from prunekit.planning.depth_search import Deep
from prunekit.plans.contents import Plan

logger = logging.getLogger(__name__)

_WORSE = 2  # sets in a row that damage more than the best one, after which no more blocks are tried
_NO_SET = (SelectionError, NothingToPruneError, PlanError, VerificationError)


class HasPlan(Protocol):
    """Whatever has a plan."""

    @property
    def plan(self) -> Plan: ...


Widths = Callable[[Deep | None], HasPlan]


@dataclass(frozen=True, eq=False)
class Mix:
    """Blocks and branches that go, then widths to the target: one plan, and what it damages.

    ``steps`` is how many units of depth went where they went one after another, None where something else chose.
    """

    name: str
    deep: Deep | None
    made: Any
    damage: float
    steps: int | None = None

    @property
    def gone(self) -> int:
        """Units of depth that go."""
        widths = self.made.plan.widths
        return sum(width.before - width.after for width in widths if width.role.startswith("depth."))


@dataclass(eq=False)
class Mixing:
    """Whole sets within one target, each measured.

    Attributes:
        meter: damage of plans on the original, with all that is done to what is left.
        measured: how many inputs damage is measured on.
        tried: every mix so far.
        refused: why the last one that was none is none.
    """

    meter: Meter
    measured: int
    tried: list[Mix] = field(default_factory=list)
    refused: PrunekitError | None = None

    def one_after_another(self, steps: Iterable[Deep], widths: Widths) -> None:
        """Tries the target with nothing of depth gone, with one unit, with two, and so on: as long as it gets better.

        ``widths`` makes the whole plan that meets the target when these are gone, by ranking.
        """
        for deep in _none_first(steps):
            gone = 0 if deep is None else sum(width.before - width.after for width in deep.plan.widths)
            if not self.add(f"{gone}", deep, widths, gone):
                continue
            if self._worse_in_a_row() >= _WORSE or is_met(self.tried[-1]):
                break

    def add(self, name: str, deep: Deep | None, widths: Widths, steps: int | None = None) -> bool:
        """Measures the whole that ``widths`` makes; False where it makes none that meets the target."""
        try:
            made = widths(deep)
        except _NO_SET as error:
            logger.info("%s: no set, %s", name, error.what)
            self.refused = error
            return False
        damage = self.meter.whole(made.plan)
        logger.info("%s: damage %.6g", name, damage)
        self.tried.append(Mix(name, deep, made, damage, steps))
        return True

    def best(self) -> Mix:
        """The mix with the least damage so far. Raises what stood in the way where there is none."""
        if not self.tried:
            assert self.refused is not None
            raise self.refused
        return min(self.tried, key=lambda mix: mix.damage)

    def _worse_in_a_row(self) -> int:
        least = min(range(len(self.tried)), key=lambda n: self.tried[n].damage)
        return len(self.tried) - 1 - least

    def remarks(self, over: str, best: Mix, told: Sequence[str]) -> list[str]:
        """What was tried, for the report; ``over`` says what the target is spent on."""
        steps = ", ".join(f"{mix.name} {mix.damage:.4g}" for mix in self.tried if mix.steps is not None)
        others = ", ".join(f"{mix.name} {mix.damage:.4g} ({mix.gone})" for mix in self.tried if mix.steps is None)
        passes = self.meter.bill.passes
        return [
            f"{over}: {f'damage by units of depth gone: {steps}; other sets' if steps else 'sets'} (units gone): "
            f"{others or 'none'}; {best.gone} are taken, of {best.name!r}, which damages {best.damage:.4g}; "
            f"{passes:.1f} forward passes over {self.measured} inputs",
            *told,
        ]


def _none_first(steps: Iterable[Deep]) -> Iterable[Deep | None]:
    yield None
    try:
        yield from steps
    except NothingToPruneError as error:  # then the widths alone meet the target, or say that they cannot
        logger.warning("no block goes: %s", error.what)


def is_met(mix: Mix) -> bool:
    """Whether depth alone meets the target: no width went."""
    return mix.deep is not None and not mix.made.plan.cuts
