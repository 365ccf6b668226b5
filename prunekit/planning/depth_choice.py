"""Blocks and branches while they are chosen: a plan without some is certified, and what cannot go is remembered."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from prunekit.coupling.groups import Frozen, Group
from prunekit.errors import PlanError, TraceError, VerificationError
from prunekit.plans.contents import Plan, Width
from prunekit.removal.certificate import Certificate
from prunekit.removal.covering import Cover, Unit
from prunekit.removal.joint_plans import JointRemover
from prunekit.removal.largest_set import Certifying, RefusedError, Remembering, largest_certified

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class DepthChoice:
    """Blocks and branches while they are chosen: those that ``never`` go, and why some were ``refused``.

    Where maps may stand for some ``remover`` is a JointRemover. ``known`` is what it said of sets of them.
    """

    groups: Sequence[Group]
    remover: Certifying
    cover: Cover
    never: set[Unit] = field(default_factory=set)
    refused: list[Frozen] = field(default_factory=list)
    known: dict[Any, Any] = field(default_factory=dict)

    def kept(self, gone: Sequence[Unit]) -> dict[str, Tensor]:
        """What is left of every group that loses some, what goes along counted."""
        return self._kept(self.cover.closed(gone))

    def _kept(self, gone: Sequence[Unit]) -> dict[str, Tensor]:
        left = {g.name: [u for u in range(g.size) if (g.name, u) not in gone] for g in self.groups}
        touched = {name for name, _ in gone}
        return {
            name: torch.tensor(units, dtype=torch.int64, device="cpu")
            for name, units in left.items()
            if name in touched
        }

    def certified(self, gone: Sequence[Unit], mapped: Collection[Unit] = ()) -> tuple[Plan, Certificate] | None:
        """The plan without these blocks, ``mapped`` of them with a map in their place.

        None where some cannot go, which from now on stay.
        """
        try:
            outermost = self._kept(self.cover.outermost(gone))
            plan, certificate, refused = largest_certified(self._with_maps(mapped), self.groups, outermost)
        except RefusedError as error:
            if not error.refused:
                raise
            refused, plan = error.refused, None
        if not refused:
            assert plan is not None
            roles = {group.name: group for group in self.groups}
            widths = [Width(at, roles[at].role, roles[at].size, tuple(u.tolist())) for at, u in self.kept(gone).items()]
            return replace(plan, widths=tuple(widths)), certificate
        self.refused += refused
        names = {frozen.name for frozen in refused}
        self.never |= {(g.name, u) for g in self.groups for u in range(g.size) if g.places[u] in names}
        return None

    def with_map(self, unit: Unit) -> Plan | None:
        """The certified plan in which this unit alone goes and a map stands in its place; None where none can."""
        try:
            return self._with_maps([unit]).planned(self._kept([unit]))[0]
        except (VerificationError, TraceError, PlanError) as error:
            logger.info("no map can stand for %s %d: %s", *unit, error.what)
            return None

    def _with_maps(self, mapped: Collection[Unit]) -> Certifying:
        if not mapped:
            return Remembering(self.remover, self.known)
        assert isinstance(self.remover, JointRemover)
        return Remembering(replace(self.remover, mapped=frozenset(mapped)), self.known, frozenset(mapped))
