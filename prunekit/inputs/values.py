"""What a model is called with, as values."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.errors import InputError

ASK = "pass example_inputs: a Tensor, a tuple of positional arguments or a dict of keyword arguments"


class Inputs:
    """Arguments of one call: ``model(*args, **kwargs)``.

    Objects with tensors in them, such as a cache of keys and values, are handed out as copies: a call may write into
    them, and the next one has to see what the first saw.
    """

    def __init__(self, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> None:
        self._args, self._kwargs = tuple(args), dict(kwargs or {})

    @property
    def args(self) -> tuple[Any, ...]:
        return tuple(_unshared(value) for value in self._args)

    @property
    def kwargs(self) -> dict[str, Any]:
        return {key: _unshared(value) for key, value in self._kwargs.items()}

    def __repr__(self) -> str:
        return f"Inputs({self._args!r}, {self._kwargs!r})"


@dataclass(frozen=True)
class Sample:
    """One calibration sample of batch size 1, and what a loss compares it with (None without labels)."""

    inputs: Inputs
    target: Any | None = None


def map_tensors(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """``value`` with ``function`` applied to each tensor in tuples, lists, mappings and objects that hold some."""
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
    if _is_plain_object(value):
        inside = _reached(value)
        if any(isinstance(x, Tensor) for x in inside.values()):
            known = {key: function(x) if isinstance(x, Tensor) else x for key, x in inside.items()}
            return copy.deepcopy(value, known)  # what is known already is taken from there, tensors and modules
    return value


def _unshared(value: Any) -> Any:
    """``value``, with copies of the objects in it that a call may write into; tensors stay the same ones."""
    return map_tensors(value, lambda tensor: tensor) if _holds_stateful(value) else value


def _holds_stateful(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_stateful, value.values()))
    if isinstance(value, (tuple, list)):
        return any(map(_holds_stateful, value))
    return _is_stateful(value)


def _is_stateful(value: Any) -> bool:
    """Whether ``value`` is an object of some other class that holds tensors, directly or further inside."""
    return _is_plain_object(value) and any(isinstance(x, Tensor) for x in _reached(value).values())


def _is_plain_object(value: Any) -> bool:
    known = (Tensor, Mapping, tuple, list, type, nn.Module, Inputs)
    return hasattr(value, "__dict__") and not isinstance(value, known) and not callable(value)


def _reached(value: Any) -> dict[int, Any]:
    """Tensors and modules that an object holds, directly or further inside, by id."""
    found: dict[int, Any] = {}
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, (Tensor, nn.Module)):
            found[id(item)] = item
        elif isinstance(item, Mapping):
            waiting += item.values()
        elif isinstance(item, (tuple, list, set)):
            waiting += item
        elif _is_plain_object(item):
            waiting += vars(item).values()
    return found


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
    elif isinstance(value, Inputs):
        yield from tensors_in((value.args, value.kwargs))
    elif is_dataclass(value) and not isinstance(value, type):
        for entry in fields(value):
            yield from tensors_in(getattr(value, entry.name))


def is_number(tensor: Tensor) -> bool:
    """Whether it holds floating or complex numbers, not integers or truth values."""
    return tensor.is_floating_point() or tensor.is_complex()


def reals(tensor: Tensor) -> Tensor:
    """The tensor, or of a complex one its real and imaginary parts along a further axis."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


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
    if batch_size(inputs) == 0:
        raise InputError("the example inputs have no rows: their first tensor is empty", hint=ASK)
    if any(t.is_nested for t in tensors_in(inputs)):
        raise InputError("nested tensors cannot be followed among the example inputs", hint="pass a padded tensor")
    if bad := [key for key in inputs.kwargs if not isinstance(key, str)]:
        raise InputError(f"keyword {bad[0]!r} of the example inputs is not a string", hint=ASK)
    return outside_inference(inputs)


def outside_inference(inputs: Inputs) -> Inputs:
    """``inputs``, with copies of tensors made under ``torch.inference_mode``, which no gradient passes."""
    if not any(t.is_inference() for t in tensors_in((inputs.args, inputs.kwargs))):
        return inputs

    def usual(tensor: Tensor) -> Tensor:
        return tensor.clone() if tensor.is_inference() else tensor

    return Inputs(map_tensors(inputs.args, usual), map_tensors(inputs.kwargs, usual))


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
