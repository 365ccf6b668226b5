"""What a model is called with, as values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from torch import Tensor

from prunekit.errors import InputError

ASK = "pass example_inputs: a Tensor, a tuple of positional arguments or a dict of keyword arguments"


@dataclass(frozen=True)
class Inputs:
    """Arguments of one call: ``model(*args, **kwargs)``."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """One calibration sample of batch size 1, and what a loss compares it with (None without labels)."""

    inputs: Inputs
    target: Any | None = None


def map_tensors(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """``value`` with ``function`` applied to each tensor in tuples, lists, dicts and mappings; the rest as it is."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Inputs):
        return Inputs(map_tensors(value.args, function), map_tensors(value.kwargs, function))
    if isinstance(value, Mapping):
        return {key: map_tensors(item, function) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(item, function) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(map_tensors(item, function) for item in value)
    return value


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists, mappings, dataclasses and Inputs, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for entry in fields(value):
            yield from tensors_in(getattr(value, entry.name))


def normalise(example_inputs: Any) -> Inputs:
    """Example inputs as Inputs: a Tensor is one argument, a tuple or list the arguments, a mapping the keywords.

    Raises InputError on anything else, on nothing at all and on keywords that are not strings.
    """
    if isinstance(example_inputs, Inputs):
        inputs = example_inputs
    elif isinstance(example_inputs, Tensor):
        inputs = Inputs((example_inputs,))
    elif isinstance(example_inputs, Mapping):
        inputs = Inputs((), dict(example_inputs))
    elif isinstance(example_inputs, (tuple, list)):
        inputs = Inputs(tuple(example_inputs))
    else:
        raise InputError(f"example inputs of type {type(example_inputs).__name__} cannot be used", hint=ASK)
    if not inputs.args and not inputs.kwargs:
        raise InputError("the example inputs are empty", hint=ASK)
    if bad := [key for key in inputs.kwargs if not isinstance(key, str)]:
        raise InputError(f"keyword {bad[0]!r} of the example inputs is not a string", hint=ASK)
    return inputs


def batch_size(value: Any) -> int | None:
    """Batch size: rows of the first tensor that is an argument, or an entry of a mapping that is one.

    Tensors inside lists are not looked at: a list is one entry an image, without a batch axis.
    """
    entries: Iterable[Any] = ()
    if isinstance(value, Tensor):
        return value.shape[0] if value.ndim else None
    if isinstance(value, Inputs):
        entries = (*value.args, *value.kwargs.values())
    elif isinstance(value, Mapping):
        entries = value.values()
    return next((rows for rows in map(batch_size, entries) if rows is not None), None)
