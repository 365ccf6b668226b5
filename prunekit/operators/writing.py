"""Writes at positions: the axis along which they are counted stays whole, the others are written in lockstep."""

from __future__ import annotations

from prunekit.graph.nodes import Op, Ref, packet
from prunekit.labels.labelling import Labelling, Numbered
from prunekit.labels.vectors import Axis
from prunekit.operators.operator import Operator, Positions

_REASON = "positions along it are written by index"


def _index_write(c: Labelling, op: Op) -> None:
    base, dim, source = op.args[0], op.args[1], op.args[3]
    axes = list(c.of(base))
    for k, (axis, written) in enumerate(zip(axes, c.of(source), strict=True)):
        if k == dim % len(axes):
            c.freeze(axis, _REASON)
            c.freeze(written, _REASON)
            axes[k] = None
        else:
            c.unite(axis, written)
    c.set(op.outputs[0], axes)


def _index_fill(c: Labelling, op: Op) -> None:
    axes = list(c.of(op.args[0]))
    dim = op.args[1] % len(axes)
    c.freeze(axes[dim], _REASON)
    axes[dim] = None
    c.set(op.outputs[0], axes)


def _scatter(c: Labelling, op: Op) -> None:
    """Away from the indexed axis an axis may shrink only where the index was broadcast along it."""
    base, dim, index = op.args[0], op.args[1], op.args[2]
    source = op.args[3] if isinstance(op.args[3], Ref) else index
    if not base.shape:
        c.set(op.outputs[0], [])
        return
    axes: list[Axis] = []
    held = _written_at(c, base, index, source)
    for k, parts in enumerate(zip(c.of(base), c.of(index), c.of(source), strict=True)):
        whole = not base.shape[k] == index.shape[k] == source.shape[k]
        if k == dim % len(base.shape) and held is not None:
            c.follow(parts[0], held, _REASON)
            for axis in parts[1:]:
                c.freeze(axis, _REASON)
            axes.append(parts[0])
        elif k == dim % len(base.shape) or whole or parts[1] is None:
            for axis in parts:
                c.freeze(axis, _REASON)
            axes.append(None)
        else:
            c.unite(parts[0], parts[1])
            c.unite(parts[0], parts[2])
            axes.append(parts[0])
    c.set(op.outputs[0], axes)


def _written_at(c: Labelling, base: Ref, index: Ref, source: Ref) -> Numbered | None:
    """The positions along another axis at which is written; others that come in are lost."""
    held = c.numbered.get(index.id)
    for ref in (base, source):
        if ref is not index and ref.id in c.numbered:
            c.freeze(c.numbered[ref.id].axis, _REASON)
    if held is not None and held.kind != "positions":
        c.freeze(held.axis, _REASON)
        return None
    return held


def _part_write(c: Labelling, op: Op) -> None:
    """A part that is written back: the axis that it is a part of stays whole."""
    base, part = op.args[0], op.args[1]
    axes = list(c.of(base))
    dim = (op.args[2] if len(op.args) > 2 else op.kwargs.get("dim", 0)) % len(axes)
    written = list(c.of(part))
    if packet(op) == "aten.select_scatter":
        written.insert(dim, None)
    for k, (axis, other) in enumerate(zip(axes, written, strict=True)):
        if k != dim:
            c.unite(axis, other)
    c.freeze(axes[dim], "a part of it is written by position")
    c.freeze(written[dim], "a part of it is written by position")
    axes[dim] = None
    c.set(op.outputs[0], axes)


OPERATORS = (
    Operator(
        (
            "aten.index_copy",
            "aten.index_add",
            "aten.index_reduce",
        ),
        _index_write,
    ),
    Operator(
        ("aten.index_fill",),
        _index_fill,
    ),
    Operator(
        (
            "aten.scatter",
            "aten.scatter_add",
            "aten.scatter_reduce",
        ),
        _scatter,
        positions=Positions.RULED,
    ),
    Operator(
        (
            "aten.select_scatter",
            "aten.slice_scatter",
        ),
        _part_write,
    ),
)
