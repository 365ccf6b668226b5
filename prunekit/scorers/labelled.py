"""The loss of a model's output against a target, or the one that it returns: what supervised criteria differentiate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


@dataclass(frozen=True)
class OwnLoss:
    """The loss that the model itself returns, as transformers do for inputs with labels."""

    scorer: str

    def loss(self, model: Callable[..., Any], sample: Sample, key: int) -> Tensor:
        found = _loss_in(model(*sample.inputs.args, **sample.inputs.kwargs))
        if found is None:
            raise ScorerError(
                f"{self.scorer} needs a loss to differentiate, and the model returns none",
                hint=f"pass {self.scorer}(loss=...) and data with targets, or inputs with labels for which the model "
                "returns its loss, or use DisturbedTaylor, which needs no labels",
            )
        return found


def _loss_in(output: Any) -> Tensor | None:
    """What an output calls its loss, or the output itself where it is one number with a graph behind it."""
    found = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", output)
    if not isinstance(found, Tensor) or found.numel() != 1 or not found.requires_grad:
        return None
    return found.reshape(())


def supervised(loss: Loss | None, scorer: object) -> Supervised | OwnLoss:
    """The objective of ``loss``; that of the model itself where there is none."""
    return OwnLoss(type(scorer).__name__) if loss is None else Supervised(loss)
