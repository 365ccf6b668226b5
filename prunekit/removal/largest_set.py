"""The largest set of units of depth that a run certifies, and why the others have to stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from prunekit.coupling.groups import Frozen, Group
from prunekit.errors import TraceError, VerificationError
from prunekit.plans.contents import Plan
from prunekit.removal.certificate import Certificate

Kept = Mapping[str, Tensor]


class Certifying(Protocol):
    """What makes certified plans: ``Remover`` of blocks, ``BranchRemover`` of branches."""

    def planned(self, kept: Kept) -> tuple[Plan, Certificate]: ...


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
    refused: list[Frozen] = []
    wanted = {name: units.clone() for name, units in kept.items()}
    try:
        return (*remover.planned(wanted), ())
    except (VerificationError, TraceError) as error:
        last: Exception = error
    groups = {group.name: group for group in every}
    gone = [(at, unit) for at, units in wanted.items() for unit in units_gone(groups[at], units)]
    for name, unit in gone:
        group = groups[name]
        alone = torch.tensor([other for other in range(group.size) if other != unit], dtype=torch.int64)
        try:
            remover.planned({name: alone})
        except (VerificationError, TraceError) as error:
            refused.append(Frozen(group.places[unit], 1, error.what, error.where))
            wanted[name] = torch.cat([wanted[name], torch.tensor([unit])]).sort().values
    if refused and any(len(units) < groups[name].size for name, units in wanted.items()):
        return (*remover.planned(wanted), tuple(refused))
    raise RefusedError(str(last).partition("\n")[0], tuple(refused))


def units_gone(group: Group, units: Tensor) -> list[int]:
    """The units that are not among ``units``."""
    left = set(units.tolist())
    return [unit for unit in range(group.size) if unit not in left]
