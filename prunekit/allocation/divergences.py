"""How far outputs are from those of the original, without labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from prunekit.errors import ScorerError
from prunekit.inputs import is_number, reals
from prunekit.tracing.recorder import named_outputs

Outputs = list[tuple[str, Tensor]]


class Divergence(Protocol):
    """What outputs lost on one batch: (amount, weight); over batches the amounts are summed and divided by weights."""

    def of(self, outputs: Sequence[Tensor], original: Sequence[Tensor]) -> tuple[float, float]: ...


@dataclass(frozen=True)
class SquaredError:
    """Sum of (y' - y)^2 over the sum of y^2, over all outputs."""

    def of(self, outputs: Sequence[Tensor], original: Sequence[Tensor]) -> tuple[float, float]:
        pairs = list(zip(outputs, original, strict=True))
        lost = math.fsum(float((a.double() - b.double()).square().sum()) for a, b in pairs)
        return lost, math.fsum(float(b.double().square().sum()) for _, b in pairs)


@dataclass(frozen=True)
class KullbackLeibler:
    """sum p log(p / p') in nats, p the softmax of the original's last axis; the mean over places."""

    def of(self, outputs: Sequence[Tensor], original: Sequence[Tensor]) -> tuple[float, float]:
        lost, places = 0.0, 0.0
        for a, b in zip(outputs, original, strict=True):
            now, was = a.float().log_softmax(-1), b.float().log_softmax(-1)
            # a class that a mask makes impossible has log p = -inf and counts for nothing
            terms = torch.where(was > -math.inf, was.exp() * (was - now), 0.0)
            lost += float(terms.double().sum())
            places += b[..., 0].numel()
        return max(lost, 0.0), places


@dataclass(frozen=True)
class Judged:
    """A function of the user's own."""

    function: Callable[[list[Any], list[Any]], float]

    def of(self, outputs: Sequence[Tensor], original: Sequence[Tensor]) -> tuple[float, float]:
        return float(self.function(list(outputs), list(original))), 1.0


def compared_outputs(result: Any, how: object) -> Outputs:
    """The floating outputs that are compared: the logits alone where there are any and they are what counts.

    Complex ones are compared by their real and imaginary parts, which are no classes. Raises ScorerError where the
    model returns no floating tensor.
    """
    numbers = [(path, t) for path, t in named_outputs(result) if is_number(t) and t.numel()]
    found = [(path, reals(t[..., None]) if t.is_complex() else t) for path, t in numbers]
    if not found:
        raise ScorerError("the model returns no floating tensor", hint="nothing can be compared; use ranking instead")
    logits = [(path, t) for path, t in found if path == "logits"]
    return logits if logits and how in ("auto", "kl") else found


def divergence_for(how: str | Callable[[list[Any], list[Any]], float], outputs: Outputs) -> Divergence:
    """What ``Measured.damage`` asks for, for a model with these outputs."""
    if callable(how):
        return Judged(how)
    (path, first), several = outputs[0], len(outputs) > 1
    classes = not several and (path == "logits" or (first.ndim == 2 and first.shape[-1] > 1))
    return KullbackLeibler() if how == "kl" or (how == "auto" and classes) else SquaredError()
