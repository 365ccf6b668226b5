"""Taylor: how much a loss with labels changes, to first order, when a unit is set to zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.errors import ScorerError
from prunekit.inputs import Sample
from prunekit.scorers.accumulate import accumulation as accumulation_named
from prunekit.scorers.products import score_products
from prunekit.scorers.reduce import Within, reducer
from prunekit.scorers.statistics import Statistics

Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Supervised:
    """The loss of the model's output against the sample's target."""

    function: Loss

    def loss(self, model: Callable[..., Any], sample: Sample, key: int) -> Tensor:
        output = model(*sample.inputs.args, **sample.inputs.kwargs)
        try:
            return self.function(output, sample.target)
        except Exception as error:
            if sample.target is not None:
                raise
            raise ScorerError(
                f"the loss fails without a target: {error}",
                hint="pass data that yields (input, target) pairs, or use DisturbedTaylor, which needs no labels",
            ) from error


@dataclass(frozen=True)
class Taylor:
    """I = |w dL/dw| per weight, gathered per unit (Molchanov et al. 2019, Eq. 8, on weights).

    Args:
        loss: ``loss(output, target) -> scalar``; required.
        accumulation: abs, squared or signed over samples; see ``scorers/accumulate.py``.
        across: mean, sum or max over the parameters of a group.
        within: mean or sum over a unit's elements in one parameter.
        images: use the first so many samples; None means all.
    """

    loss: Loss | None = None
    accumulation: str = "abs"
    across: str = "mean"
    within: Within = "mean"
    images: int | None = None

    def __post_init__(self) -> None:
        accumulation_named(self.accumulation)
        reducer(self.across)

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64. Raises ScorerError without a loss."""
        if self.loss is None:
            raise ScorerError(
                "Taylor needs a loss to differentiate",
                hint="pass Taylor(loss=...) and data with targets, or use DisturbedTaylor, which needs no labels",
            )
        found = statistics.products(Supervised(self.loss), self.accumulation, self.images)
        return score_products(group, found, self.across, self.within)
