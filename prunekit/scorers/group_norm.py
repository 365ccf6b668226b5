"""GroupNorm: the norm of everything that would go with a unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.scorers.magnitude import Magnitude
from prunekit.scorers.needs import WEIGHTS, Needs
from prunekit.scorers.statistics import Statistics


@dataclass(frozen=True)
class GroupNorm:
    """I = sqrt(sum over all parameters of the group of the unit's w^2) (Fang et al. 2023, DepGraph, Eq. 4)."""

    needs: ClassVar[Needs] = WEIGHTS

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64. Raises ScorerError on weights that are not finite."""
        return Magnitude(p=2, across="l2", within="sum").score(group, statistics)
