"""Routed frequency: how many tokens an expert is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.scorers.contract import Scorer
from prunekit.scorers.needs import EXPERTS, Needs
from prunekit.scorers.reap import of_experts
from prunekit.scorers.statistics import Statistics


@dataclass(frozen=True)
class RoutedFrequency:
    """The share of all tokens that are sent to an expert.

    Args:
        elsewhere: the criterion of groups that are no experts; without one they are refused.
        images: use the first so many samples; None means all.
    """

    needs: ClassVar[Needs] = EXPERTS

    elsewhere: Scorer | None = None
    images: int | None = None

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64. Raises ScorerError for a group without experts."""
        return of_experts(self, group, statistics, lambda seen: seen.tokens / max(seen.total, 1))
