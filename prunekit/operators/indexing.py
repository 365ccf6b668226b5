"""Look-ups by index: an indexed axis stays whole, the others pass through."""

from __future__ import annotations

from prunekit.graph.nodes import Op, Ref
from prunekit.labels.labelling import Labelling
from prunekit.labels.vectors import Axis
from prunekit.operators.operator import Operator, Positions, Scales
from prunekit.operators.routing import picked


def _embedding(c: Labelling, op: Op) -> None:
    table, index = op.args[0], op.args[1]
    rows, width = c.of(table)
    c.freeze(rows, "its rows are looked up by index")
    c.flag(width, "linear")
    c.set(op.outputs[0], [*c.of(index), width])


def _embedding_bag(c: Labelling, op: Op) -> None:
    rows, width = c.of(op.args[0])
    c.freeze(rows, "its rows are looked up by index")
    c.flag(width, "linear")
    for out in op.outputs:
        c.set(out, [None] * len(out.shape))
    c.axes[op.outputs[0].id] = [None, width]
    largest = op.outputs[3]
    if len(largest.shape) == 2:
        c.axes[largest.id] = [None, width]


def _index_select(c: Labelling, op: Op) -> None:
    base, dim = op.args[0], op.args[1]
    axes = list(c.of(base))
    c.freeze(axes[dim], "positions along it are selected by index")
    axes[dim] = None
    c.set(op.outputs[0], axes)


def _couple_index(c: Labelling, op: Op) -> None:
    base, indices = op.args[0], list(op.args[1])
    axes = list(c.of(base))
    indices += [None] * (len(axes) - len(indices))
    if base.id in c.numbered:
        c.numbered[op.outputs[0].id] = c.numbered[base.id]
    if any(i is not None and not i.dtype.is_floating_point and i.dtype.itemsize == 1 for i in indices):
        c.refuse(op, "aten.index with a mask")
        return
    used = [k for k, i in enumerate(indices) if i is not None]
    for k in used:
        _read_at(c, axes[k], indices[k], base)
    if base.id in c.weights and any(indices[k].id in c.numbered for k in used):
        c.weights[op.outputs[0].id] = c.weights[base.id]
    rank = max((len(i.shape) for i in indices if i is not None), default=0)
    kept: list[Axis] = [a for k, a in enumerate(axes) if k not in used]
    adjacent = used == list(range(used[0], used[-1] + 1)) if used else True
    at = used[0] if used and adjacent else 0
    c.set(op.outputs[0], [*kept[:at], *([None] * rank), *kept[at:]])


def _read_at(c: Labelling, axis: Axis, index: Ref, base: Ref) -> None:
    """An axis that is read by number; where the numbers are positions along another one it keeps step with that."""
    held = c.numbered.get(index.id)
    if held is None:
        c.freeze(axis, "it is indexed by number")
    elif held.kind != "positions":
        c.freeze(axis, "it is indexed by counts")
        c.freeze(held.axis, "it is indexed by counts")
    else:
        picked(c, axis, held, base)


def _gather(c: Labelling, op: Op) -> None:
    """The indexed axis stays whole; another one passes where the index was broadcast along it."""
    base, dim, where = op.args[0], op.args[1], op.args[2]
    if base.id in c.numbered:
        c.numbered[op.outputs[0].id] = c.numbered[base.id]
    axes: list[Axis] = []
    for k, (axis, index) in enumerate(zip(c.of(base), c.of(where), strict=True)):
        if k == dim % len(base.shape) and where.id in c.numbered:
            _read_at(c, axis, where, base)
            c.freeze(index, "values along it are gathered by index")
            axes.append(None)
        elif k == dim % len(base.shape) or index is None or base.shape[k] != where.shape[k]:
            c.freeze(axis, "values along it are gathered by index")
            c.freeze(index, "values along it are gathered by index")
            axes.append(None)
        else:
            c.unite(axis, index)
            axes.append(axis)
    c.set(op.outputs[0], axes)


def _index_put(c: Labelling, op: Op) -> None:
    base, indices, values = op.args[0], list(op.args[1]), op.args[2]
    axes = list(c.of(base))
    indices += [None] * (len(axes) - len(indices))
    for k, i in enumerate(indices):
        if i is not None:
            c.freeze(axes[k], "it is written by index")
    trailing = [k for k in range(len(axes)) if all(i is None for i in indices[k:])]
    if isinstance(values, Ref):
        for offset, k in enumerate(reversed(trailing)):
            j = len(values.shape) - 1 - offset
            if j >= 0 and values.shape[j] > 1:
                c.unite(axes[k], c.of(values)[j])
        for axis in c.of(values)[: max(0, len(values.shape) - len(trailing))]:
            c.freeze(axis, "it is written by index")
    if op.outputs[0].id not in c.axes:
        c.set(op.outputs[0], axes)


OPERATORS = (
    Operator(
        ("aten.embedding",),
        _embedding,
    ),
    Operator(
        (
            "aten._embedding_bag",
            "aten._embedding_bag_forward_only",
        ),
        _embedding_bag,
    ),
    Operator(
        ("aten.index_select",),
        _index_select,
        scales=Scales.LINEAR,
    ),
    Operator(
        ("aten.index",),
        _couple_index,
        positions=Positions.RULED,
    ),
    Operator(
        (
            "aten.gather",
            "aten.take_along_dim",
        ),
        _gather,
        positions=Positions.RULED,
    ),
    Operator(
        ("aten.index_put",),
        _index_put,
    ),
)
