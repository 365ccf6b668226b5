"""The floating tensors that a model returns, for criteria that need no labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from prunekit.errors import ScorerError
from prunekit.inputs import Sample, is_number, reals, tensors_in


def floating_outputs(
    model: Callable[..., Any], sample: Sample, choose: Callable[[Any], Any] | None, purpose: str
) -> list[Tensor]:
    """Every floating output once, of complex ones their real and imaginary parts.

    Raises ScorerError where there is none, or none depends on a parameter.
    """
    output = model(*sample.inputs.args, **sample.inputs.kwargs)
    chosen = output if choose is None else choose(output)
    found = [reals(y) for y in {id(y): y for y in tensors_in(chosen) if is_number(y) and y.numel()}.values()]
    if not found:
        raise ScorerError(f"the model has no floating output to {purpose}", hint="choose one with output=...")
    if not any(y.requires_grad for y in found):
        raise ScorerError(
            "no output depends on a parameter that is scored",
            hint="the forward pass may run under torch.no_grad: score the submodule that does not",
        )
    return found
