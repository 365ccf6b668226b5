"""FPGM: units near the geometric median of their layer can be told by the others, and go first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from prunekit.coupling.groups import Group, Member
from prunekit.errors import ScorerError
from prunekit.scorers.needs import Needs
from prunekit.scorers.reducers import Reducer, reducer
from prunekit.scorers.statistics import Statistics


@dataclass(frozen=True)
class FPGM:
    """I_u = sum_v |w_u - w_v|_2 over the units v of a parameter, mean over parameters (He et al. 2019, Eq. 4).

    Parameters of one axis (biases, scales of norms) are left out, as in the paper. ``across`` is a reducer.
    """

    needs: ClassVar[Needs] = Needs("weights", "distances between all units of a group")

    across: str | Reducer = "mean"

    def __post_init__(self) -> None:
        reducer(self.across)

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64. Raises ScorerError where units of a parameter differ in size."""
        found = [
            distances(unit_vectors(group, member, statistics.parameter(member.tensor)))
            for member in group.parameters
            if statistics.weight(member.tensor).ndim > 1
        ]
        if not found:
            raise ScorerError(f"group {group.name} has no matrix to measure distances in", where=group.name)
        return reducer(self.across)(torch.stack(found))


def distances(vectors: Tensor) -> Tensor:
    """(units, elements) -> (units,): the sum of the Euclidean distances to all others."""
    total = torch.zeros(len(vectors), dtype=torch.float64, device="cpu")
    for start in range(0, len(vectors), 256):
        block = torch.cdist(vectors[start : start + 256], vectors, compute_mode="donot_use_mm_for_euclid_dist")
        total[start : start + 256] = block.sum(1, dtype=torch.float64).cpu()
    return total


def unit_vectors(group: Group, member: Member, weight: Tensor) -> Tensor:
    """(units, elements): what each unit owns of a parameter. Raises ScorerError where units differ in size."""
    owned = torch.nonzero(member.unit_of >= 0).flatten()
    unit_of = member.unit_of[owned]
    counts = torch.bincount(unit_of, minlength=group.size)
    if len(set(counts.tolist())) != 1:
        raise ScorerError(
            f"units of group {group.name} own different numbers of coordinates of {member.tensor}",
            where=group.name,
            hint="distances between them are not defined: use another scorer",
        )
    order = owned[torch.argsort(unit_of, stable=True)].to(weight.device)
    real = torch.promote_types(weight.dtype, torch.float32)
    chosen = weight.detach().movedim(member.axis, 0).index_select(0, order).to(real)
    flat = chosen.reshape(group.size, -1)
    return torch.view_as_real(flat).flatten(1) if flat.is_complex() else flat
