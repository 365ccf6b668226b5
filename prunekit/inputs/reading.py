"""Samples of batch size 1 out of whatever data a user has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from prunekit.errors import InputError
from prunekit.inputs.values import Inputs, Sample, batch_size, is_number, map_tensors, outside_inference, tensors_in

TARGET_KEYS = ("labels", "label", "targets", "target")


def as_samples(data: Any, like: Inputs, limit: int | None = None, *, whole: bool = False) -> Iterator[Sample]:
    """Samples of batch size 1 out of user data, at most ``limit``; no more of ``data`` is read than needed.

    Args:
        data: a DataLoader, a dataset, any iterable of items, or one tensor or mapping, which counts as one item. An
            item is a tensor, a mapping, a tuple of as many entries as ``like`` has arguments, one of these with a
            target behind it, an Inputs or a Sample. Batches are split on axis 0; items without a batch axis gain one.
            Of a mapping, the keys of ``like`` are inputs and ``labels`` or ``target`` is the target.
        like: the example inputs, which tell inputs from targets and batched from single items.
        whole: whether an item is one sample, however many rows it has.

    Raises:
        InputError: an item does not fit the example inputs, or there is no item at all.
    """
    taken = 0
    for index, item in enumerate(_items(data)):
        if limit is not None and taken >= limit:
            return
        for sample in _split(item, like, f"item {index} of the data", whole=whole):
            yield sample
            taken += 1
            if limit is not None and taken >= limit:
                return
    if not taken:
        raise InputError("the calibration data holds no sample", hint="pass a DataLoader or an iterable of inputs")


def _items(data: Any) -> Iterable[Any]:
    if isinstance(data, (Tensor, Mapping, Inputs, Sample)):
        return (data,)
    if hasattr(data, "__iter__") and not isinstance(data, (str, bytes)):
        return cast("Iterable[Any]", data)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return (data[i] for i in range(len(data)))
    raise InputError(f"data of type {type(data).__name__} cannot be iterated", hint="pass a DataLoader or an iterable")


def _split(item: Any, like: Inputs, where: str, *, whole: bool) -> Iterator[Sample]:
    if isinstance(item, Sample):
        yield item
        return
    inputs, target = _pair_up(item, like, where)
    inputs, single = _fit(outside_inference(inputs), like, where)
    if single:
        yield Sample(inputs, _collate_one(target))
        return
    batch = batch_size(inputs)
    if whole or batch is None or batch == 1:
        yield Sample(inputs, target)
        return
    for i in range(batch):
        yield Sample(_one_row(inputs, i, batch), _one_row(target, i, batch))


def _pair_up(item: Any, like: Inputs, where: str) -> tuple[Inputs, Any]:
    """Which part of an item is inputs and which part is the target."""
    if isinstance(item, (tuple, list)):
        arity = len(like.args)
        if arity and len(item) in (arity, arity + 1) and all(map(_alike, item, like.args)):
            return Inputs(tuple(item[:arity]), dict(like.kwargs)), item[arity] if len(item) > arity else None
        if len(item) == 2:
            return _as_inputs(item[0], like, where), item[1]
        if len(item) == 1:
            return _pair_up(item[0], like, where)
    if isinstance(item, Mapping):
        target = next((item[k] for k in TARGET_KEYS if k in item and k not in like.kwargs), None)
        return _as_inputs(item, like, where), target
    return _as_inputs(item, like, where), None


def _as_inputs(value: Any, like: Inputs, where: str) -> Inputs:
    if isinstance(value, Inputs):
        return value
    if isinstance(value, Mapping) and like.kwargs and not like.args:
        needed = [key for key, example in like.kwargs.items() if any(True for _ in tensors_in(example))]
        if missing := [key for key in needed if key not in value]:
            raise InputError(f"{missing[0]!r} is missing", where=where, hint=f"it has {', '.join(map(str, value))}")
        return Inputs((), {key: value.get(key, example) for key, example in like.kwargs.items()})
    if isinstance(value, (tuple, list)) and len(value) == len(like.args) and all(map(_alike, value, like.args)):
        return Inputs(tuple(value), dict(like.kwargs))
    if len(like.args) == 1 and _alike(value, like.args[0]):
        return Inputs((value,), dict(like.kwargs))
    if isinstance(value, Tensor) and not like.args and len(like.kwargs) == 1:
        return Inputs((), {next(iter(like.kwargs)): value})
    expected = f"{len(like.args)} arguments and the keywords {list(like.kwargs)}"
    raise InputError(
        f"{type(value).__name__} does not match the example inputs", where=where, hint=f"pass items with {expected}"
    )


def _alike(value: Any, example: Any) -> bool:
    """Whether two arguments are of one kind: tensor, mapping, sequence or anything else."""
    kinds = (Tensor, Mapping, (tuple, list))
    return [isinstance(value, kind) for kind in kinds] == [isinstance(example, kind) for kind in kinds]


def _fit(inputs: Inputs, like: Inputs, where: str) -> tuple[Inputs, bool]:
    """Inputs in the example's float types and with a batch axis, and whether the axis had to be added."""
    ours, theirs = list(tensors_in(inputs)), list(tensors_in(like))
    if len(ours) != len(theirs):
        raise InputError(
            f"{len(ours)} tensors where the example inputs have {len(theirs)}",
            where=where,
            hint="turn images into tensors first and pass items like the example inputs",
        )
    single = bool(ours) and ours[0].ndim == theirs[0].ndim - 1
    examples = iter(theirs)

    def fit(tensor: Tensor) -> Tensor:
        example = next(examples)
        if _kind_of_number(tensor) != _kind_of_number(example):
            raise InputError(
                f"a {tensor.dtype} tensor where the example inputs have {example.dtype}",
                where=where,
                hint="convert and normalise the data as for the model's own evaluation",
            )
        if single and tensor.ndim == example.ndim - 1:
            tensor = tensor[None]
        if tensor.ndim != example.ndim:
            raise InputError(
                f"a tensor of shape {tuple(tensor.shape)} where the example inputs have {tuple(example.shape)}",
                where=where,
                hint="pass items like the example inputs, with or without the batch axis",
            )
        return tensor.to(example.dtype) if is_number(tensor) else tensor

    return map_tensors(inputs, fit), single


def _kind_of_number(tensor: Tensor) -> tuple[bool, bool]:
    return tensor.is_floating_point(), tensor.is_complex()


def first_row(inputs: Inputs) -> Inputs | None:
    """The first row of ``inputs`` that have several, with its axis kept; else None."""
    batch = batch_size(inputs)
    return None if batch is None or batch == 1 else cast("Inputs", _one_row(inputs, 0, batch))


def _one_row(value: Any, i: int, batch: int) -> Any:
    """Row ``i`` of everything that has ``batch`` rows, with the batch axis kept."""

    def has_rows(tensor: Tensor) -> bool:
        return tensor.ndim > 0 and tensor.shape[0] == batch

    # One record an image, as detection data sets have, and not a few tensors of targets for all images.
    if (
        isinstance(value, (tuple, list))
        and len(value) == batch
        and (all(isinstance(entry, Mapping) for entry in value) or not any(map(has_rows, tensors_in(value))))
    ):
        return [value[i]]
    return map_tensors(value, lambda t: t[i : i + 1] if has_rows(t) else t)


def _collate_one(target: Any) -> Any:
    """The target of one item as a batch of one."""
    if isinstance(target, (int, float)):
        return torch.tensor([target], device="cpu")
    return map_tensors(target, lambda t: t[None])
