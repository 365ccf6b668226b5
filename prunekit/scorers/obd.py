"""OBD: how much a loss with labels changes, to second order, with the diagonal of its Hessian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.errors import InputError
from prunekit.scorers.kinds import Reads, kinds_named, of_kinds
from prunekit.scorers.labelled import Loss, supervised
from prunekit.scorers.needs import CURVATURE, Needs
from prunekit.scorers.product_scores import score_products
from prunekit.scorers.reducers import Reducer, Within, reducer
from prunekit.scorers.statistics import Statistics


@dataclass(frozen=True)
class OBD:
    """I = 1/2 |h| w^2, h the diagonal of the Hessian of the loss (LeCun et al. 1989, Optimal Brain Damage, Eq. 3).

    h is estimated by Hutchinson's probes: h = E[v * (H v)], v of independent signs; ``probes`` a sample. The mean over
    samples is taken before the absolute value.

    Args:
        loss: ``loss(output, target) -> scalar``; without, the loss that the model itself returns.
        probes: random sign vectors for every sample, >= 1; the error falls with the root of probes x samples.
        seed: of the signs.
        across, within: how weights become units; the second-order change adds up, so both are sums.
        reads: kinds of parameters that count, such as ``matrix`` alone; see ``scorers/kinds.py``.
        images: use the first so many samples; None means all.
    """

    needs: ClassVar[Needs] = CURVATURE

    loss: Loss | None = None
    probes: int = 1
    seed: int = 0
    across: str | Reducer = "sum"
    within: Within = "sum"
    reads: Reads = "all"
    images: int | None = None

    def __post_init__(self) -> None:
        if self.probes < 1:
            raise InputError(f"probes={self.probes} estimates nothing", hint="choose at least one")
        reducer(self.across)
        kinds_named(self.reads)

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64. Raises ScorerError without a loss."""
        found = statistics.curvature(supervised(self.loss, self), self.probes, self.seed, self.images)
        return score_products(of_kinds(group, statistics, self.reads), found, self.across, self.within) / 2
