"""Inputs to calibrate on, one row a sample where the model takes single rows, else a whole call a sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from prunekit.inputs import Inputs, Sample, as_samples, first_row, generated, sample_named, tensors_in
from prunekit.planning.symmetry_check import is_meta
from prunekit.scorers.calibrate import to_model
from prunekit.scorers.undisturbed import untouched


def generated_for(model: nn.Module, like: Inputs, count: int, seed: int) -> list[Inputs]:
    """``count`` inputs that look like ``like`` and on which ``model`` runs; ``like`` itself where no others do.

    Rows of a graph are its nodes, and those of an exported program are counted: neither runs on one of them.
    """
    made = generated(like, count, seed)
    if _cannot_fail(like) or _runs_on(model, made[0]):
        return made
    whole = generated(like, count, seed, whole=True)
    return whole if _runs_on(model, whole[0]) else [like] * count


def samples_for(model: nn.Module, data: Any, like: Inputs, limit: int | None = None) -> Iterator[Sample]:
    """``as_samples`` of ``data``; whole items where ``model`` runs on the example inputs ``like``, but not on a row."""
    if isinstance(data, Sequence) and all(isinstance(item, Sample) for item in data):
        return as_samples(data, like, limit)
    row = first_row(like)
    whole = row is not None and not _runs_on(model, row) and _runs_on(model, like)
    return as_samples(data, like, limit, whole=whole)


def generated_run(model: nn.Module, like: Inputs, count: int, seed: int) -> bool:
    """Whether ``model`` runs on everything that ``generated_for`` makes."""
    return all(_runs_on(model, made) for made in generated_for(model, like, count, seed))


def check_runs(model: nn.Module, samples: Iterable[Sample]) -> None:
    """Raises InputError for a sample on which forward itself fails."""
    with untouched(model, ()), torch.no_grad():
        for number, sample in enumerate(samples):
            with sample_named(number):
                inputs = to_model(sample, model).inputs
                model(*inputs.args, **inputs.kwargs)


def _cannot_fail(like: Inputs) -> bool:
    """Whether ``like`` is one row of one floating tensor: what looks like it has the same shape."""
    tensors = list(tensors_in(like))
    return len(tensors) == 1 and tensors[0].is_floating_point() and first_row(like) is None


def _runs_on(model: nn.Module, inputs: Inputs) -> bool:
    if is_meta(model):
        return True
    try:
        check_runs(model, [Sample(inputs)])
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:  # whatever the model raises
        return False
    return True
