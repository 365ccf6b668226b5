"""REAP: what an expert adds to the tokens that are sent to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

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
        return of_experts(self, group, statistics, lambda seen: seen.norms / seen.tokens.clamp(min=1))


class OfExperts(Protocol):
    """A criterion of experts, with another one for all other groups and a number of samples."""

    @property
    def elsewhere(self) -> Scorer | None: ...

    @property
    def images(self) -> int | None: ...


def of_experts(
    criterion: OfExperts, group: Group, statistics: Statistics, importance: Callable[[Contributions], Tensor]
) -> Tensor:
    """``importance`` of what the experts of a group add; where it has none, what the criterion's ``elsewhere`` says.

    Raises ScorerError for a group without experts where there is no ``elsewhere``.
    """
    if not (group.stacks or group.routes):
        if criterion.elsewhere is not None:
            return criterion.elsewhere.score(group, statistics)
        scorer = type(criterion).__name__
        raise ScorerError(
            f"{scorer} scores experts, and these units are none",
            where=group.name,
            hint=f"pass roles=['experts'] or ['depth.expert'], or {scorer}(elsewhere=prunekit.Wanda()) for the rest",
        )
    return importance(statistics.contributions(group, criterion.images))
