"""One target for blocks and widths: how many blocks go is decided by what is left of the outputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from prunekit.allocation.measuring import Meter
from prunekit.compensation.settings import Compensation
from prunekit.errors import NothingToPruneError, PrunekitError, SelectionError
from prunekit.inputs import Inputs
from prunekit.planning.deep import Deep
from prunekit.plans.contents import Plan

logger = logging.getLogger(__name__)

_WORSE = 2  # sets in a row that damage more than the best one, after which no more blocks are tried


class HasPlan(Protocol):
    """Whatever has a plan."""

    @property
    def plan(self) -> Plan: ...


D = TypeVar("D", bound=HasPlan)


@dataclass(frozen=True, eq=False)
class Mix:
    """Blocks that go, then widths to the target: one plan, and what it damages."""

    blocks: int
    deep: Deep | None
    made: Any
    damage: float


@dataclass(eq=False)
class Mixing:
    """Tries the target with no block gone, with one, with two, ... and measures every whole.

    Attributes:
        meter: damage of plans on the original.
        refit: what is done to the layers that are left, counted in.
        inputs: what the refit sees.
        tried: every mix so far.
    """

    meter: Meter
    refit: Compensation | None
    inputs: Sequence[Inputs]
    tried: list[Mix] = field(default_factory=list)

    def best(self, steps: Iterable[Deep], widths: Callable[[Deep | None, bool], D]) -> Mix:
        """The mix with the least damage.

        ``widths`` makes the whole plan that meets the target when these blocks are gone, by ranking or, where its
        second argument says so, by measuring every width; it is measured for the best number of blocks alone.
        Raises SelectionError where no number of blocks lets the widths meet the target.
        """
        refused: PrunekitError | None = None
        for deep in _none_first(steps):
            try:
                self._try(deep, widths(deep, False))
            except (SelectionError, NothingToPruneError) as error:
                refused = error
                continue
            if self._worse_in_a_row() >= _WORSE or _is_met(self.tried[-1]):
                break
        if not self.tried:
            assert refused is not None
            raise refused
        best = min(self.tried, key=lambda mix: mix.damage)
        if not _is_met(best):
            self._try(best.deep, widths(best.deep, True))
        return min(self.tried, key=lambda mix: mix.damage)

    def _try(self, deep: Deep | None, made: D) -> None:
        blocks = 0 if deep is None else sum(width.before - width.after for width in deep.plan.widths)
        damage = self.meter.whole(made.plan, self.refit, self.inputs)
        logger.info("without %d blocks: damage %.6g", blocks, damage)
        self.tried.append(Mix(blocks, deep, made, damage))

    def _worse_in_a_row(self) -> int:
        least = min(range(len(self.tried)), key=lambda n: self.tried[n].damage)
        return len(self.tried) - 1 - least

    def remarks(self, best: Mix) -> list[str]:
        """What was tried, for the report."""
        told = ", ".join(f"{mix.blocks} {mix.damage:.4g}" for mix in self.tried)
        passes = self.meter.bill.passes
        return [
            f"blocks and widths within one target: damage by blocks gone: {told}; {best.blocks} are taken, "
            f"{passes:.1f} forward passes over {len(self.inputs)} inputs"
        ]


def _none_first(steps: Iterable[Deep]) -> Iterable[Deep | None]:
    yield None
    try:
        yield from steps
    except NothingToPruneError as error:  # then the widths alone meet the target, or say that they cannot
        logger.warning("no block goes: %s", error.what)


def _is_met(mix: Mix) -> bool:
    """Whether blocks alone meet the target: no width went."""
    return mix.deep is not None and not mix.made.plan.cuts
