"""Samples on which a model yields nothing that can be scored by, told with where it begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.errors import ScorerError
from prunekit.inputs import Inputs, Sample, is_number, sample_named, tensors_in
from prunekit.modules.soundness import all_finite, unsound
from prunekit.modules.walk import named_modules
from prunekit.scorers.calibrate import to_model
from prunekit.scorers.undisturbed import untouched
from prunekit.tracing.recorder import output_tensors


def refuse_not_finite(model: nn.Module, samples: Iterable[Sample], start: int = 0) -> None:
    """Raises ScorerError for a sample, the first being number ``start``, whose outputs hold NaN, or are not finite
    because the sample is not.

    Infinity alone may be meant, as where a model masks what cannot be chosen. Weights that are not finite are told
    elsewhere, by their names.
    """
    if unsound(model):
        return
    with untouched(model, ()), torch.no_grad():
        for number, sample in enumerate(samples, start):
            inputs = to_model(sample, model).inputs
            with sample_named(number), _first_with_nan(model) as found:
                made = output_tensors(model(*inputs.args, **inputs.kwargs))
            where, is_sound = f"calibration sample {number}", all(map(all_finite, tensors_in(inputs)))
            if not is_sound and not all(map(all_finite, made)):
                raise ScorerError(
                    "it holds NaN or infinity, and so do the outputs: there is nothing to score by",
                    where=where,
                    hint="leave the sample out, or check how it was read and normalised",
                )
            if any(map(_has_nan, made)):
                began = f"first in what {found[0] or 'the model itself'} returns" if found else "in what it returns"
                raise ScorerError(
                    f"the outputs hold NaN, {began}: there is nothing to score by",
                    where=where,
                    hint="check the weights there, and whether the data are what the model expects",
                )


def refuse_odd_samples(model: nn.Module, samples: list[Inputs]) -> list[Inputs]:
    """``samples``. Raises what ``refuse_not_finite`` raises for those that are not finite; the others are not run."""
    for number, inputs in enumerate(samples):
        if not all(map(all_finite, tensors_in(inputs))):
            refuse_not_finite(model, [Sample(inputs)], number)
    return samples


@contextmanager
def _first_with_nan(model: nn.Module) -> Iterator[list[str]]:
    """Inside, the paths of modules whose outputs hold NaN, the first that does so in front."""
    found: list[str] = []
    handles = []
    for path, module in named_modules(model):
        if not isinstance(module, torch.jit.ScriptModule):

            def note(_module: nn.Module, _args: Any, output: Any, path: str = path) -> None:
                if not found and any(map(_has_nan, output_tensors(output))):
                    found.append(path)

            handles.append(module.register_forward_hook(note))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _has_nan(tensor: Tensor) -> bool:
    return is_number(tensor) and not all_finite(tensor) and bool(tensor.isnan().any())
