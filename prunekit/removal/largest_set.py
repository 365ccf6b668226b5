"""The largest set of units of depth that a run certifies, and why the others have to stay."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from prunekit.coupling.groups import Frozen, Group
from prunekit.errors import PlanError, PrunekitError, TraceError, VerificationError
from prunekit.plans.contents import Plan
from prunekit.removal.certificate import Certificate

Kept = Mapping[str, Tensor]


class Certifying(Protocol):
    """What makes certified plans: ``Remover`` of blocks, ``BranchRemover`` of branches."""

    def planned(self, kept: Kept) -> tuple[Plan, Certificate]: ...


@dataclass(frozen=True, eq=False)
class Remembering:
    """``remover``, and what it said of each set of units: a run is made once, also where a set comes up again.

    ``known`` may be shared by several that make other plans of the same units, each with an ``owner`` of its own.
    """

    remover: Certifying
    known: dict[Hashable, tuple[Plan, Certificate] | PrunekitError]
    owner: Hashable = None

    def planned(self, kept: Kept) -> tuple[Plan, Certificate]:
        """What ``remover.planned`` gives or raises."""
        key = self.owner, tuple((name, tuple(units.tolist())) for name, units in sorted(kept.items()))
        if key not in self.known:
            try:
                self.known[key] = self.remover.planned(kept)
            except (VerificationError, TraceError, PlanError) as error:
                self.known[key] = error
        found = self.known[key]
        if isinstance(found, PrunekitError):
            raise found
        return found


class RefusedError(VerificationError):
    """No unit of those that were chosen can go."""

    def __init__(self, what: str, refused: tuple[Frozen, ...]) -> None:
        super().__init__(what)
        self.refused = refused


def largest_certified(
    remover: Certifying, every: Sequence[Group], kept: Kept
) -> tuple[Plan, Certificate, tuple[Frozen, ...]]:
    """``remover.planned``, and where that fails the same without the units that cannot go, told with reasons.

    Raises RefusedError where none can.
    """
    groups = {group.name: group for group in every}
    gone = [(at, unit) for at, units in kept.items() for unit in units_gone(groups[at], units)]
    refused: list[Frozen] = []

    def without(these: Sequence[tuple[str, int]]) -> tuple[Plan, Certificate] | None:
        """The plan in which these units go; where they are refused, which: by halves. Then None."""
        try:
            return remover.planned(_kept_without(these, groups))
        except (VerificationError, TraceError) as error:
            if len(these) == 1:
                group = groups[these[0][0]]
                refused.append(Frozen(group.places[these[0][1]], 1, error.what, error.where))
            else:
                for half in (these[: len(these) // 2], these[len(these) // 2 :]):
                    without(half)
            last.append(error)
            return None

    last: list[PrunekitError] = []
    found = without(gone)
    if found is not None:
        return (*found, ())
    names = {frozen.name for frozen in refused}
    rest = [(at, unit) for at, unit in gone if groups[at].places[unit] not in names]
    if not (refused and rest):
        raise RefusedError(last[-1].what, tuple(refused))
    return (*remover.planned(_kept_without(rest, groups)), tuple(refused))


def _kept_without(gone: Sequence[tuple[str, int]], groups: Mapping[str, Group]) -> Kept:
    found = {}
    for name in dict.fromkeys(at for at, _ in gone):
        out = {unit for at, unit in gone if at == name}
        left = [unit for unit in range(groups[name].size) if unit not in out]
        found[name] = torch.tensor(left, dtype=torch.int64, device="cpu")
    return found


def units_gone(group: Group, units: Tensor) -> list[int]:
    """The units that are not among ``units``."""
    left = set(units.tolist())
    return [unit for unit in range(group.size) if unit not in left]
