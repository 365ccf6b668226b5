"""REAP: what an expert adds to the tokens that are sent to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.errors import ScorerError
from prunekit.scorers.contract import Scorer
from prunekit.scorers.contributions import Contributions
from prunekit.scorers.needs import EXPERTS, Needs
from prunekit.scorers.statistics import Statistics


@dataclass(frozen=True)
class REAP:
    """S_j = mean over the tokens x that expert j is sent of g_j(x) ||f_j(x)||_2 (Lasby et al. 2025, arXiv 2510.13999).

    g is the gate and f the output of the expert, both as the layer uses them. An expert to which none is sent has 0.

    Args:
        elsewhere: the criterion of groups that are no experts; without one they are refused.
        images: use the first so many samples; None means all.
    """

    needs: ClassVar[Needs] = EXPERTS

    elsewhere: Scorer | None = None
    images: int | None = None

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64. Raises ScorerError for a group without experts."""
        if not group.stacks and self.elsewhere is not None:
            return self.elsewhere.score(group, statistics)
        seen = of_experts(group, statistics, self.images, "REAP")
        return seen.norms / seen.tokens.clamp(min=1)


def of_experts(group: Group, statistics: Statistics, images: int | None, scorer: str) -> Contributions:
    """What the experts of a group add. Raises ScorerError for a group of another kind."""
    if not group.stacks:
        raise ScorerError(
            f"{scorer} scores experts, and these units are none",
            where=group.name,
            hint=f"pass roles=['experts'], or {scorer}(elsewhere=prunekit.Wanda()) for the other roles",
        )
    return statistics.contributions(group, images)
