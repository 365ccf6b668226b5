"""Operators that rearrange axes without looking at the numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from prunekit.graph.nodes import Call, Op, Ref, packet
from prunekit.graph.provenance import TracedInt, expression_of, is_leaf
from prunekit.labels.labelling import Labelling
from prunekit.labels.vectors import Axis, frozen_copy
from prunekit.operators import shapes
from prunekit.operators.operator import Operator, Positions, Scales


def _reshape(c: Labelling, op: Op) -> None:
    base, out = op.args[0], op.outputs[0]
    if 0 in base.shape:
        c.set(out, [None] * len(out.shape))
        return
    c.set(out, c.labels.reshape(c.of(base), base.shape, out.shape))
    c.show(out, base)
    named = op.call is not None and op.call.name in ("view", "reshape")
    for value, axis in zip(_arguments(op, len(out.shape)) if named else (), c.of(out), strict=False):
        if isinstance(value, TracedInt) and axis is not None and not is_leaf(value.expression):
            c.sized.setdefault(value.expression, axis)


def _permute(c: Labelling, op: Op) -> None:
    base, out = op.args[0], op.outputs[0]
    order = list(range(len(base.shape)))
    if packet(op) == "aten.permute":
        order = [d % len(order) for d in op.args[1]]
    elif packet(op) == "aten.transpose":
        a, b = op.args[1] % len(order), op.args[2] % len(order)
        order[a], order[b] = order[b], order[a]
    else:
        order = order[::-1]
    axes = c.of(base)
    fitted = [axes[i] for i in order]
    if out is base:  # transposed in place
        c.axes[out.id] = fitted
        return
    c.set(out, fitted)
    c.show(out, base)


def _unsqueeze(c: Labelling, op: Op) -> None:
    base, out = op.args[0], op.outputs[0]
    axes = list(c.of(base))
    axes.insert(op.args[1] % len(out.shape), None)
    c.set(out, axes)
    c.show(out, base)


def _squeeze(c: Labelling, op: Op) -> None:
    base, out = op.args[0], op.outputs[0]
    dims = op.args[1] if len(op.args) > 1 else list(range(len(base.shape)))
    gone = {d % len(base.shape) for d in (dims if isinstance(dims, (list, tuple)) else [dims])} if base.shape else set()
    c.set(out, [a for i, a in enumerate(c.of(base)) if not (i in gone and base.shape[i] == 1)])
    c.show(out, base)


def _expand(c: Labelling, op: Op) -> None:
    base, out = op.args[0], op.outputs[0]
    offset = len(out.shape) - len(base.shape)
    axes: list[Axis] = [*([None] * offset), *c.of(base)]
    sizes = _arguments(op, len(out.shape))
    for k, size in enumerate(out.shape):
        if size > 1 and (k < offset or base.shape[k - offset] == 1):
            axes[k] = _named_axis(c, sizes[k], size)
            if axes[k] is None and k and _is_free(op, axes[k - 1], out.shape[k - 1]):
                axes[k] = c.labels.fresh(size)
                if op.call is not None and op.call.name == "repeat_interleave":
                    c.equate(_repeats(op.call), axes[k], size)
    c.set(out, axes)
    c.origin[out.id] = base.id
    if base.id in c.weights:
        c.weights[out.id] = c.weights[base.id]


def _is_free(op: Op, before: Axis, size: int) -> bool:
    """Whether a broadcast axis may shrink with what it meets, such as query heads that share one key head.

    Where torch broadcasts by itself it may, unless it repeats the units of the axis in front, which then own the
    copies. Where the model names the number of copies, the rest is left to the equation of that number.
    """
    if op.call is None or op.call.name in ("expand_as", "view_as", "broadcast_to"):
        return False
    return size == 1 if op.call.name in ("expand", "repeat_interleave") else before is None


def _repeats(call: Call) -> Any:
    return call.args[1] if len(call.args) > 1 else call.kwargs.get("repeats")


def _arguments(op: Op, rank: int) -> list[Any]:
    """For each axis of an expanded tensor the Python size behind it, or the tensor whose size it takes."""
    call = op.call
    if call is None:
        return [None] * rank
    if call.name in ("expand_as", "view_as") and len(call.args) > 1:
        return [(call.args[1], k) for k in range(rank)]
    sizes = call.args[1:] or tuple(call.kwargs.values())
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    return list(sizes) if len(sizes) == rank else [None] * rank


def _named_axis(c: Labelling, value: Any, size: int) -> Axis:
    """The axis whose size a broadcast axis takes: its coordinates hold one number and shrink with the other's."""
    if isinstance(value, tuple):
        other, k = value
        return c.of(other)[k] if isinstance(other, Ref) and len(other.shape) > k and other.shape[k] == size else None
    expression = expression_of(value) if isinstance(value, int) else ("constant", 0)
    axes = c.axes.get(expression[1]) if expression[0] == "size" else None
    axis = axes[expression[2]] if axes else c.sized.get(expression)
    return axis if axis is not None and axis.size == size else None


def _as_strided(c: Labelling, op: Op) -> None:
    """Exact where it shows the tensor as it lies, as torch's pooling does when it fixes the strides of axes of one."""
    base, out, strides = op.args[0], op.outputs[0], op.args[2]
    offset = op.args[3] if len(op.args) > 3 else op.kwargs.get("storage_offset")
    same_shape = not offset and list(op.args[1]) == list(base.shape)
    if same_shape and all(s == 1 or a == b for s, a, b in zip(base.shape, base.strides, strides, strict=True)):
        c.set(out, c.of(base))
    elif not offset:
        _windows(c, op)
    else:
        c.refuse(op, "aten.as_strided")


def _windows(c: Labelling, op: Op) -> None:
    """Windows over some axes, as in windowed attention: features that lie next to each other pass through, what the
    windows slide over stays. Strides that are written as numbers are found by the rehearsal."""
    base, out, strides = op.args[0], op.outputs[0], op.args[2]
    axes: list[Axis] = [None] * len(out.shape)
    sizes = op.call.args[1] if op.call is not None and len(op.call.args) > 1 else None
    sizes = op.call.kwargs.get("size", sizes) if op.call is not None else sizes
    for j, axis in enumerate(c.of(base)):
        at = [k for k, s in enumerate(strides) if s == base.strides[j] == 1 and out.shape[k] == base.shape[j]]
        if len(at) == 1 and isinstance(sizes, (tuple, list)) and len(sizes) == len(out.shape):
            axes[at[0]] = axis
            c.equate(sizes[at[0]], axis, base.shape[j])
        else:
            c.freeze(axis, "windows slide over it")
    c.set(out, axes)


def _resize(c: Labelling, op: Op) -> None:
    """Written again at the size that it has already, as observers do with what they hold."""
    base, out = op.args[0], op.outputs[0]
    if list(out.shape) != list(base.shape):
        c.refuse(op, "aten.resize")
        return
    sizes = op.call.args[1:] if op.call is not None else ()
    if sizes and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    for k, axis in enumerate(c.of(base)):
        if len(sizes) == len(out.shape):
            c.equate(sizes[k], axis, base.shape[k])
        else:
            c.freeze(axis, "its size is written as a constant in forward")
    c.set(out, c.of(base))


def _repeat(c: Labelling, op: Op) -> None:
    base, out, times = op.args[0], op.outputs[0], op.args[1]
    offset = len(out.shape) - len(base.shape)
    counts = _arguments(op, len(out.shape))
    axes: list[Axis] = [None] * offset
    for axis, count in zip(c.of(base), list(times)[offset:], strict=True):
        axes.append(None if axis is None else axis if count == 1 else frozen_copy(np.tile(axis, count)))
    for k, size in enumerate(out.shape):
        if axes[k] is None and size > 1 and (k < offset or base.shape[k - offset] == 1):
            axes[k] = _named_axis(c, counts[k], size)
    c.set(out, axes)


def _repeat_interleave(c: Labelling, op: Op) -> None:
    base, out = op.args[0], op.outputs[0]
    dim = op.args[2] if len(op.args) > 2 else op.kwargs.get("dim")
    if dim is None or not isinstance(op.args[1], int):
        c.refuse(op, "aten.repeat_interleave")
        return
    axes = list(c.of(base))
    axis = axes[dim % len(axes)]
    axes[dim % len(axes)] = None if axis is None else frozen_copy(np.repeat(axis, op.args[1]))
    c.set(out, axes)


def _flip(c: Labelling, op: Op) -> None:
    base, out = op.args[0], op.outputs[0]
    axes = list(c.of(base))
    for d in op.args[1]:
        axis = axes[d]
        axes[d] = None if axis is None else frozen_copy(axis[::-1])
    c.set(out, axes)


def _roll(c: Labelling, op: Op) -> None:
    """A shift by a constant would move across what was removed, so a rolled axis cannot shrink."""
    base, out = op.args[0], op.outputs[0]
    dims = op.args[2] if len(op.args) > 2 else op.kwargs.get("dims", [])
    rolled = {d % len(base.shape) for d in dims} if dims else set(range(len(base.shape)))
    axes = list(c.of(base))
    for d in rolled:
        c.freeze(axes[d], "it is rolled by a constant shift")
        axes[d] = None
    c.set(out, axes)


def _pixel_shuffle(c: Labelling, op: Op) -> None:
    base, out, r = op.args[0], op.outputs[0], int(op.args[1])
    axes = list(c.of(base))
    channel = len(axes) - 3
    axes[channel] = c.labels.collapse(axes[channel], (base.shape[channel] // (r * r), r * r), 0, c.where)
    for d in (-1, -2):
        c.freeze(axes[d], "pixel shuffle interleaves it")
        axes[d] = None
    c.set(out, axes)


def _pixel_unshuffle(c: Labelling, op: Op) -> None:
    base, out, r = op.args[0], op.outputs[0], int(op.args[1])
    axes = list(c.of(base))
    channel = len(axes) - 3
    axis = axes[channel]
    axes[channel] = None if axis is None else frozen_copy(np.repeat(axis, r * r))
    for d in (-1, -2):
        c.freeze(axes[d], "pixel unshuffle splits it")
        axes[d] = None
    c.set(out, axes)


def _channel_shuffle(c: Labelling, op: Op) -> None:
    base, out, groups = op.args[0], op.outputs[0], int(op.args[1])
    axes = list(c.of(base))
    size = base.shape[1]
    rows, columns = c.labels.split(axes[1], (groups, size // groups))
    axes[1] = c.labels.merge([columns, rows], (size // groups, groups))
    c.set(out, axes)


def _im2col(c: Labelling, op: Op) -> None:
    base, out = op.args[0], op.outputs[0]
    axes = list(c.of(base))
    _freeze_spatial(c, base, axes, len(axes) - 2)
    axis = axes[-3]
    window = int(np.prod(op.args[1]))
    fitted = [*axes[:-3], None if axis is None else frozen_copy(np.repeat(axis, window)), None]
    c.set(out, fitted)


def _col2im(c: Labelling, op: Op) -> None:
    base, out = op.args[0], op.outputs[0]
    axes = list(c.of(base))
    window = int(np.prod(op.args[2]))
    channel = c.labels.collapse(axes[-2], (base.shape[-2] // window, window), 0, c.where)
    c.freeze(axes[-1], "it is folded into an image")
    c.set(out, [*axes[:-2], channel, None, None])


def _freeze_spatial(c: Labelling, base: Ref, axes: list[Axis], start: int) -> None:
    for axis in axes[start:]:
        c.freeze(axis, "an operator slides a window over it")


OPERATORS = (
    Operator(("aten.resize",), _resize),
    Operator(
        ("aten.view",),
        _reshape,
        positions=Positions.KEPT,
        scales=Scales.VIEW,
        rearranges=True,
    ),
    Operator(
        ("aten._unsafe_view",),
        _reshape,
        positions=Positions.KEPT,
        scales=Scales.VIEW,
        rearranges=True,
        takes_time=False,
        shapes={"aten._unsafe_view.default": shapes.of_unsafe_view},
    ),
    Operator(
        ("aten.reshape",),
        _reshape,
        positions=Positions.KEPT,
        rearranges=True,
    ),
    Operator(
        ("aten._reshape_alias",),
        _reshape,
        positions=Positions.KEPT,
        scales=Scales.VIEW,
    ),
    Operator(
        (
            "aten._reshape_copy",
            "aten.flatten",
        ),
        _reshape,
        positions=Positions.KEPT,
    ),
    Operator(
        (
            "aten.permute",
            "aten.transpose",
            "aten.t",
        ),
        _permute,
        positions=Positions.KEPT,
        scales=Scales.VIEW,
        rearranges=True,
    ),
    Operator(
        (
            "aten.movedim",
            "aten.numpy_T",
            "aten.adjoint",
        ),
        _permute,
        positions=Positions.KEPT,
    ),
    Operator(
        ("aten.unsqueeze",),
        _unsqueeze,
        positions=Positions.KEPT,
        scales=Scales.VIEW,
        rearranges=True,
    ),
    Operator(
        ("aten.squeeze",),
        _squeeze,
        positions=Positions.KEPT,
        scales=Scales.VIEW,
        rearranges=True,
    ),
    Operator(
        ("aten.expand",),
        _expand,
        positions=Positions.KEPT,
        scales=Scales.VIEW,
        rearranges=True,
    ),
    Operator(
        (
            "aten.broadcast_to",
            "aten.expand_copy",
        ),
        _expand,
        positions=Positions.KEPT,
    ),
    Operator(
        ("aten.as_strided",),
        _as_strided,
    ),
    Operator(
        ("aten.repeat",),
        _repeat,
        positions=Positions.KEPT,
        scales=Scales.LINEAR,
    ),
    Operator(
        ("aten.tile",),
        _repeat,
        positions=Positions.KEPT,
    ),
    Operator(
        ("aten.repeat_interleave",),
        _repeat_interleave,
        positions=Positions.KEPT,
    ),
    Operator(
        ("aten.flip",),
        _flip,
        positions=Positions.KEPT,
        scales=Scales.LINEAR,
    ),
    Operator(
        ("aten.roll",),
        _roll,
        positions=Positions.KEPT,
        scales=Scales.LINEAR,
    ),
    Operator(
        ("aten.pixel_shuffle",),
        _pixel_shuffle,
    ),
    Operator(
        ("aten.pixel_unshuffle",),
        _pixel_unshuffle,
    ),
    Operator(
        (
            "aten.channel_shuffle",
            "aten.native_channel_shuffle",
        ),
        _channel_shuffle,
    ),
    Operator(
        ("aten.im2col",),
        _im2col,
    ),
    Operator(
        ("aten.col2im",),
        _col2im,
    ),
    Operator(
        ("aten.contiguous",),
        rearranges=True,
    ),
)
