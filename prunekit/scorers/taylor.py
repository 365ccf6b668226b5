"""Taylor: how much a loss with labels changes, to first order, when a unit is set to zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.scorers.accumulate import accumulation as accumulation_named
from prunekit.scorers.kinds import Reads, kinds_named, of_kinds
from prunekit.scorers.labelled import Loss, supervised
from prunekit.scorers.needs import LABELLED, Needs
from prunekit.scorers.product_scores import score_products
from prunekit.scorers.reducers import Reducer, Within, reducer
from prunekit.scorers.statistics import Statistics


@dataclass(frozen=True)
class Taylor:
    """I = |w dL/dw| per weight, gathered per unit (Molchanov et al. 2019, Eq. 8, on weights).

    Args:
        loss: ``loss(output, target) -> scalar``; without, the loss that the model itself returns.
        accumulation: abs, squared or signed over samples; see ``scorers/accumulate.py``.
        across: a reducer over the parameters of a group; see ``scorers/reducers.py``.
        within: mean or sum over a unit's elements in one parameter.
        reads: kinds of parameters that count, such as ``matrix`` alone; see ``scorers/kinds.py``.
        images: use the first so many samples; None means all.
    """

    needs: ClassVar[Needs] = LABELLED

    loss: Loss | None = None
    accumulation: str = "abs"
    across: str | Reducer = "mean"
    within: Within = "mean"
    reads: Reads = "all"
    images: int | None = None

    def __post_init__(self) -> None:
        accumulation_named(self.accumulation)
        reducer(self.across)
        kinds_named(self.reads)

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64. Raises ScorerError without a loss."""
        found = statistics.products(supervised(self.loss, self), self.accumulation, self.images)
        return score_products(of_kinds(group, statistics, self.reads), found, self.across, self.within)
