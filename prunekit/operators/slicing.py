"""Operators that take a part of an axis, or cut it into parts."""

from __future__ import annotations

from typing import Any

from prunekit.graph.nodes import Call, Op, Ref
from prunekit.graph.provenance import TracedInt, expression_of
from prunekit.labels.labelling import Labelling
from prunekit.labels.vectors import Axis, Vector, frozen_copy
from prunekit.operators.operator import Operator, Positions, Scales
from prunekit.operators.routing import picked


def _select(c: Labelling, op: Op) -> None:
    base, out = op.args[0], op.outputs[0]
    dim = op.args[1] % len(base.shape)
    axes = list(c.of(base))
    axis = axes.pop(dim)
    if not _picked_by_tensor(c, op, base, axis, dim):
        c.freeze(axis, "one position of it is selected by number")
    c.set(out, axes)
    _parts_of_weights(c, base, out)


def _picked_by_tensor(c: Labelling, op: Op, base: Ref, axis: Axis, dim: int) -> bool:
    """``weights[expert]`` where the number is a tensor of one position, which torch reads before it selects."""
    if op.call is None or op.call.name != "__getitem__":
        return False
    index = op.call.args[1] if isinstance(op.call.args[1], tuple) else (op.call.args[1],)
    held = [c.numbered[i.id] for i in index if isinstance(i, Ref) and i.id in c.numbered]
    if len(held) == 1 and dim == 0 and isinstance(index[0], Ref) and index[0].id in c.numbered:
        picked(c, axis, held[0], base)
        return True
    for numbered in held:
        c.freeze(numbered.axis, "one position along it is read")
    return False


def _unbind(c: Labelling, op: Op) -> None:
    base = op.args[0]
    dim = (op.args[1] if len(op.args) > 1 else op.kwargs.get("dim", 0)) % len(base.shape)
    axes = list(c.of(base))
    c.freeze(axes.pop(dim), "it is unpacked position by position")
    for out in op.outputs:
        c.set(out, axes)
    _parts_of_weights(c, base, *op.outputs)


def _slice(c: Labelling, op: Op) -> None:
    base, out = op.args[0], op.outputs[0]
    dim, start, stop, step = (list(op.args[1:]) + [0, None, None, 1][len(op.args) - 1 :])[:4]
    dim %= len(base.shape)
    size = base.shape[dim]
    axes = list(c.of(base))
    axis = axes[dim]
    begin = _clamp(start or 0, size)
    end = _clamp(size if stop is None else stop, size)
    step = 1 if step is None else step
    if axis is not None and step > 1:
        axis = _strided(c, axis, step)
    if axis is not None:
        if not (step > 1 and begin < step and end == size):  # else: one position of every run, wherever the runs are
            _bounds(c, op, base, dim, axis, begin, end)
        axes[dim] = frozen_copy(axis[begin:end:step])
    elif out.shape[dim] != size:
        axes[dim] = None
    c.set(out, axes)
    if begin == 0 and end == size and step == 1:
        c.show(out, base)
    _parts_of_weights(c, base, out)


def _parts_of_weights(c: Labelling, base: Ref, *parts: Ref) -> None:
    """Parts of a fused weight are weights."""
    if base.id in c.weights:
        c.weights.update({part.id: c.weights[base.id] for part in parts})


def _clamp(index: int, size: int) -> int:
    return max(0, min(size, index + size if index < 0 else index))


def _strided(c: Labelling, axis: Vector, step: int) -> Axis:
    """Every ``step``-th position: the runs of ``step`` neighbours must stay whole."""
    if axis.size % step:
        c.freeze(axis, "it is read with a stride that does not divide it")
        return None
    first = axis.reshape(-1, step)
    for j in range(1, step):
        c.unite(frozen_copy(first[:, 0]), frozen_copy(first[:, j]))
    return axis


def _bounds(c: Labelling, op: Op, base: Ref, dim: int, axis: Vector, begin: int, end: int) -> None:
    """What was cut off in front and behind must keep step with the Python expressions of the bounds."""
    if begin == 0 and end == axis.size:
        return
    found = slice_arguments(op.call, base, dim)
    if found is None:
        c.freeze(axis, "a part of it is taken by position")
        return
    for value, edge in zip(found, (begin, end), strict=True):
        if edge in (0, axis.size):
            continue
        if not isinstance(value, int):  # a tensor, whose value says where
            c.freeze(axis, "a part of it is taken by position")
            return
        if value < 0:
            value = TracedInt(edge, ("+", ("size", base.id, dim), expression_of(value)))
        c.equate(value, frozen_copy(axis[:edge]), edge)


def slice_arguments(call: Call | None, base: Ref, dim: int) -> tuple[Any, Any] | None:
    """The Python start and stop behind an ATen slice, where the call shows them; None if it does not."""
    if call is None:
        return None
    if call.name == "narrow":
        begin, length = (
            v for v in (*call.args[2:], *(call.kwargs.get(n) for n in ("start", "length"))) if v is not None
        )
        whole = isinstance(begin, int) and isinstance(length, int)  # else a tensor, whose value says where
        return (begin, begin + length) if whole else None
    if call.name not in ("__getitem__", "__setitem__") or call.args[0] is None:
        return None
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    rank = len(call.args[0].shape)
    used = sum(1 for i in index if i is not None and i is not Ellipsis)
    at = 0
    for item in index:
        if item is None:
            at += 1
        elif item is Ellipsis:
            at += rank - used
        elif isinstance(item, slice):
            if at == dim and (item.start is not None or item.stop is not None):
                return 0 if item.start is None else item.start, base.shape[dim] if item.stop is None else item.stop
            at += 1
        elif isinstance(item, int):
            continue
        else:
            at += 1
    return None


def _couple_split(c: Labelling, op: Op) -> None:
    base = op.args[0]
    dim = (op.args[2] if len(op.args) > 2 else op.kwargs.get("dim", 0)) % len(base.shape)
    axes = list(c.of(base))
    axis = axes[dim]
    pieces: list[Axis] = [None] * len(op.outputs)
    if axis is not None:
        edges, at = [], 0
        for out in op.outputs:
            edges.append((at, at + out.shape[dim]))
            at += out.shape[dim]
        pieces = [frozen_copy(axis[a:b]) for a, b in edges]
        _sizes_follow(c, op, pieces)
    for out, piece in zip(op.outputs, pieces, strict=True):
        c.set(out, [*axes[:dim], piece, *axes[dim + 1 :]])
    _parts_of_weights(c, base, *op.outputs)


def _sizes_follow(c: Labelling, op: Op, pieces: list[Axis]) -> None:
    """Pieces of named sizes are repaired through their expressions; equal pieces must stay equal."""
    call = op.call
    sizes = None
    if call is not None and call.name in ("split", "split_with_sizes", "unsafe_split", "tensor_split"):
        sizes = call.args[1] if len(call.args) > 1 else next(iter(call.kwargs.values()), None)
    if isinstance(sizes, (tuple, list)) and len(sizes) == len(pieces):
        for value, piece in zip(sizes, pieces, strict=True):
            if piece is not None:
                c.equate(value, piece, piece.size)
        return
    if isinstance(sizes, int):
        c.equate(sizes, pieces[0], op.outputs[0].shape[0] if pieces[0] is None else pieces[0].size)
    for piece in pieces[1:]:
        if piece is not None and pieces[0] is not None and piece.size == pieces[0].size:
            c.unite(pieces[0], piece)
        else:
            c.freeze(pieces[0], "it is cut into unequal pieces of a fixed size")
            c.freeze(piece, "it is cut into unequal pieces of a fixed size")


def _glu(c: Labelling, op: Op) -> None:
    base, out = op.args[0], op.outputs[0]
    dim = (op.args[1] if len(op.args) > 1 else -1) % len(base.shape)
    axes = list(c.of(base))
    axis = axes[dim]
    if axis is not None:
        half = axis.size // 2
        first = frozen_copy(axis[:half])
        c.unite(first, frozen_copy(axis[half:]))
        axes[dim] = first
    c.set(out, axes)


def _unfold(c: Labelling, op: Op) -> None:
    base, out = op.args[0], op.outputs[0]
    axes = list(c.of(base))
    dim = op.args[1] % len(axes)
    c.freeze(axes[dim], "windows are taken along it")
    axes[dim] = None
    c.set(out, [*axes, None])


def _diagonal(c: Labelling, op: Op) -> None:
    base, out = op.args[0], op.outputs[0]
    axes = list(c.of(base))
    a = (op.args[2] if len(op.args) > 2 else 0) % len(axes)
    b = (op.args[3] if len(op.args) > 3 else 1) % len(axes)
    for d in (a, b):
        c.freeze(axes[d], "its diagonal is taken")
    c.set(out, [*(x for i, x in enumerate(axes) if i not in (a, b)), None])


OPERATORS = (
    Operator(
        ("aten.select",),
        _select,
        positions=Positions.KEPT,
        scales=Scales.PART,
    ),
    Operator(
        ("aten.unbind",),
        _unbind,
        positions=Positions.KEPT,
        scales=Scales.PART,
    ),
    Operator(
        ("aten.slice",),
        _slice,
        positions=Positions.KEPT,
        scales=Scales.PART,
    ),
    Operator(
        (
            "aten.split",
            "aten.split_with_sizes",
        ),
        _couple_split,
        positions=Positions.KEPT,
        scales=Scales.PART,
    ),
    Operator(
        (
            "aten.chunk",
            "aten.unsafe_split",
            "aten.unsafe_chunk",
        ),
        _couple_split,
        positions=Positions.KEPT,
    ),
    Operator(
        ("aten.glu",),
        _glu,
    ),
    Operator(
        ("aten.unfold",),
        _unfold,
    ),
    Operator(
        ("aten.diagonal",),
        _diagonal,
    ),
)
