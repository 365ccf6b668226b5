"""Batches of a run: one tensor, or the arguments of forward by name; rows are samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from prunekit.errors import InputError
from prunekit.inputs.values import Inputs, batch_size, map_tensors, tensors_in

Batch = Tensor | Mapping[str, Tensor]


def run_on(model: Callable[..., Any], batch: Batch) -> Any:
    """What ``model`` gives for ``batch``: its first argument, or its arguments by name."""
    return model(batch) if isinstance(batch, Tensor) else model(**batch)


def as_batch(inputs: Inputs) -> Batch:
    """The one tensor that a model is called with, or its arguments by name. Raises InputError for several without."""
    given = list(tensors_in(inputs))
    if len(given) == 1:
        return given[0]
    if inputs.args or any(not isinstance(value, Tensor) for value in inputs.kwargs.values()):
        raise InputError("several inputs of a run need names", hint="call forward by keywords")
    return inputs.kwargs


def moved(batch: Batch, device: torch.device | str) -> Batch:
    """``batch`` on ``device``."""
    found: Batch = map_tensors(batch, lambda tensor: tensor.to(device))
    return found


def taken_rows(batch: Batch, first: int, last: int) -> Batch:
    """The samples ``first`` to ``last - 1``; what has no axis of samples goes along as it is."""
    count = batch_size(batch)
    found: Batch = map_tensors(batch, lambda t: t[first:last] if t.ndim and len(t) == count else t)
    return found


def joined_rows(batches: Sequence[Batch]) -> Batch:
    """The samples of all ``batches``, which have the same names, as one batch."""
    head = batches[0]
    if isinstance(head, Tensor):
        return torch.cat([each for each in batches if isinstance(each, Tensor)])
    count = batch_size(head)
    found = {name: [each[name] for each in batches if not isinstance(each, Tensor)] for name in head}
    return {name: torch.cat(t) if t[0].ndim and len(t[0]) == count else t[0] for name, t in found.items()}


def device_of(batch: Batch) -> torch.device:
    """Where the first tensor lies."""
    return next(tensors_in(batch)).device


def bytes_in(batch: Batch) -> int:
    """Bytes of all tensors."""
    return sum(tensor.nbytes for tensor in tensors_in(batch))
