"""Fisher: how much a loss with labels changes, to second order, with the Fisher information for the curvature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.scorers.kinds import Reads, kinds_named, of_kinds
from prunekit.scorers.labelled import Loss, supervised
from prunekit.scorers.needs import LABELLED, Needs
from prunekit.scorers.product_scores import score_products
from prunekit.scorers.reducers import Reducer, Within, reducer
from prunekit.scorers.statistics import Statistics


@dataclass(frozen=True)
class Fisher:
    """I = 1/2 w^2 mean_i (dL_i/dw)^2: the diagonal of the empirical Fisher matrix (Theis et al. 2018, Eq. 9).

    Args:
        loss: ``loss(output, target) -> scalar``; without, the loss that the model itself returns.
        across, within: how weights become units; the second-order change adds up, so ``within`` is a sum.
        reads: kinds of parameters that count, such as ``matrix`` alone; see ``scorers/kinds.py``.
        images: use the first so many samples; None means all.
    """

    needs: ClassVar[Needs] = LABELLED

    loss: Loss | None = None
    across: str | Reducer = "sum"
    within: Within = "sum"
    reads: Reads = "all"
    images: int | None = None

    def __post_init__(self) -> None:
        reducer(self.across)
        kinds_named(self.reads)

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64. Raises ScorerError without a loss."""
        found = statistics.products(supervised(self.loss, self), "second_moment", self.images)
        return score_products(of_kinds(group, statistics, self.reads), found, self.across, self.within) / 2
