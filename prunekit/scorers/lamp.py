"""LAMP: a magnitude that is comparable between layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.scorers.group_norm import GroupNorm
from prunekit.scorers.needs import WEIGHTS, Needs
from prunekit.scorers.normalisers import lamp_scores
from prunekit.scorers.statistics import Statistics


@dataclass(frozen=True)
class LAMP:
    """I_u = |w_u|^2 / sum of |w_v|^2 over the units v that are no smaller (Lee et al. 2021, Eq. 4, units for weights).

    The one largest unit of every group has 1. Made for ranking groups together: use it with ``normaliser="none"``.
    """

    needs: ClassVar[Needs] = WEIGHTS

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64 in (0, 1]. Raises ScorerError on weights that are not finite."""
        return lamp_scores(GroupNorm().score(group, statistics))
