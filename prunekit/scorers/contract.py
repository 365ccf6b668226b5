"""The seam of scoring: what a criterion is."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.scorers.statistics import Statistics


class Scorer(Protocol):
    """A criterion: how much every unit of a group matters."""

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance of shape (group.size,), float, finite; higher = keep."""
        ...
