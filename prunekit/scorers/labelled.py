"""The loss of a model's output against a target: what every criterion that reads labels differentiates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from prunekit.errors import ScorerError
from prunekit.inputs import Sample

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


def supervised(loss: Loss | None, scorer: object) -> Supervised:
    """The objective of ``loss``. Raises ScorerError where there is none; the message names the scorer."""
    if loss is None:
        name = type(scorer).__name__
        raise ScorerError(
            f"{name} needs a loss to differentiate",
            hint=f"pass {name}(loss=...) and data with targets, or use DisturbedTaylor, which needs no labels",
        )
    return Supervised(loss)
