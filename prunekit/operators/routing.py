"""Choices by value, and what they choose: top-k names positions along an axis, and other tensors are read at these.

A mixture of experts routes so: scores of the experts, the positions of the best, and matrices that are picked by
position. The order of the experts means nothing as long as all that is read at these positions keeps step, so the axis
of the scores and those that are read at positions along it live and die together.
"""

from __future__ import annotations

from typing import Any

from prunekit.graph.nodes import Op, Ref, packet
from prunekit.labels.labelling import Labelling, Numbered
from prunekit.labels.vectors import Axis, frozen_copy
from prunekit.operators import shapes
from prunekit.operators.operator import Operator, Positions
from prunekit.operators.pointwise import couple_pointwise
from prunekit.operators.product_costs import matrices
from prunekit.operators.reduction import positional

_CHOSEN = "it is read at positions along another axis"


def _topk(c: Labelling, op: Op) -> None:
    """The best positions of each row, whatever their order is: values and positions come out."""
    base, count = op.args[0], int(op.args[1])
    dim = op.args[2] if len(op.args) > 2 else op.kwargs.get("dim", -1)
    axes = list(c.of(base))
    axis = axes[dim] if axes else None
    if axis is None or axis.size <= count:
        positional(c, op)
        return
    c.flag(axis, "normalised")
    c.choose(axis, count, op.outputs[1].id)
    axes[dim] = None
    for out in op.outputs:
        c.set(out, axes)
    c.number(op.outputs[1], axis)


def _sort(c: Labelling, op: Op) -> None:
    """Positions along another axis may be sorted: rows go by the matrix that they belong to."""
    base = op.args[0]
    positional(c, op)
    if base.id in c.numbered:
        c.number(op.outputs[0], c.numbered[base.id].axis, c.numbered[base.id].kind)


def _cumsum(c: Labelling, op: Op) -> None:
    """Counts that are added up say where the rows of each position end."""
    base = op.args[0]
    held = c.numbered.get(base.id)
    if held is None:
        positional(c, op)
        return
    if held.kind != "counts" or len(base.shape) != 1:
        c.freeze(held.axis, "aten.cumsum computes with positions along it")
    c.set(op.outputs[0], c.of(base))
    c.number(op.outputs[0], held.axis, "offsets")


def _histogram(c: Labelling, op: Op) -> None:
    """How often each position occurs: ``histc(positions, bins=n, min=0, max=n - 1)``."""
    base, out = op.args[0], op.outputs[0]
    held = c.numbered.get(base.id)
    if held is None:
        c.refuse(op, packet(op))
        return
    size = held.axis.size
    values = [_python_argument(op, k, name) for k, name in enumerate(("bins", "min", "max"), 1)]
    whole = all(isinstance(v, int) for v in values)
    if held.kind != "positions" or not whole or (int(values[0]), int(values[1]), int(values[2])) != (size, 0, size - 1):
        c.freeze(held.axis, "positions along it are counted in bins of another size")
        c.set(out, [None])
        return
    c.equate(values[0], held.axis, size)
    c.equate(values[2] + 1, held.axis, size)
    c.set(out, [held.axis])
    c.number(out, held.axis, "counts")


def _bincount(c: Labelling, op: Op) -> None:
    """How often each position occurs: ``bincount(positions, minlength=n)``."""
    base, out = op.args[0], op.outputs[0]
    held = c.numbered.get(base.id)
    least = _python_argument(op, 2, "minlength")
    if held is None or held.kind != "positions" or out.shape != (held.axis.size,) or not isinstance(least, int):
        if held is not None:
            c.freeze(held.axis, "positions along it are counted up to the highest that occurs")
        c.set(out, [None])
        return
    c.equate(least, held.axis, held.axis.size)
    c.set(out, [held.axis])
    c.number(out, held.axis, "counts")


def _equal_to(c: Labelling, op: Op) -> None:
    """Positions compared with one of them, which stays and whose number follows those in front; or with none of them.

    The number after the last is none, and often stands for tokens that belong to no expert.
    """
    value = _python_argument(op, 1, "other")
    if _against_all(c, op):
        return
    for numbered in [c.numbered[ref.id] for ref in op.inputs if ref.id in c.numbered]:
        axis = numbered.axis
        if numbered.kind != "positions" or not isinstance(value, int) or len(op.inputs) > 1:
            c.freeze(axis, f"{packet(op)} computes with positions along it")
        elif 0 <= value < axis.size:
            c.freeze(frozen_copy(axis[value : value + 1]), "forward asks for this position")
            if value:
                c.equate(value, frozen_copy(axis[:value]), int(value))
    couple_pointwise(c, op)


def _against_all(c: Labelling, op: Op) -> bool:
    """Positions [..., 1] compared with every position there is, ``arange(n)``: a table [..., n] of zeros and ones."""
    if packet(op) != "aten.eq" or len(op.inputs) != 2 or op.inputs[0].id not in c.numbered:
        return False
    held, every, out = c.numbered[op.inputs[0].id], op.inputs[1], op.outputs[0]
    size = every.shape[-1] if every.shape else 0
    is_range = every.value is not None and every.value.tolist() == list(range(size))
    if held.kind != "positions" or not is_range or len(every.shape) != 1 or op.inputs[0].shape[-1:] != (1,):
        return False
    asked = op.call is not None and op.call.name == "one_hot"  # which names the size of its result
    axis = c.labels.fresh(size)
    if not asked:
        end = c.ranges.get(every.id)
        c.equate(end, axis, size) if isinstance(end, int) else c.freeze(axis, "it is compared with a list of numbers")
    c.follow(axis, held, _CHOSEN)
    c.set(out, [*c.of(op.inputs[0])[:-1], axis])
    return True


def _nonzero(c: Labelling, op: Op) -> None:
    """Places of a mask: along its one axis they are positions; of a mask of several axes none may be removed."""
    base, out = op.args[0], op.outputs[0]
    if len(base.shape) == 1:
        c.number(out, c.of(base)[0])
    else:
        for axis in c.of(base):
            c.freeze(axis, "places of a mask along it are looked for")
    c.set(out, [None] * len(out.shape))


def _python_argument(op: Op, position: int, name: str) -> Any:
    """A Python argument of the call behind an operator."""
    return None if op.call is None else op.call.argument(position, name)


def _grouped_mm(c: Labelling, op: Op) -> None:
    """Rows [S, K] in runs, each run times a matrix of its own: [G, K, N], as in a mixture of experts.

    The matrices keep step with the axis whose positions were counted to tell the runs apart.
    """
    rows, stack = op.args[0], op.args[1]
    if len(rows.shape) != 2 or len(stack.shape) != 3:
        c.refuse(op, packet(op))
        return
    a, b = c.of(rows), c.of(stack)
    ends = op.args[2] if len(op.args) > 2 else op.kwargs.get("offs")
    held = c.numbered.get(ends.id) if isinstance(ends, Ref) else None
    if held is not None and held.kind == "offsets":
        picked(c, b[0], held, stack)
    else:
        c.freeze(b[0], "its matrices are chosen by the routing of the rows")
        if held is not None:
            c.freeze(held.axis, _CHOSEN)
    c.unite(a[1], b[1])
    if stack.id in c.weights:
        for axis in b[1:]:
            c.flag(axis, "linear")
    c.set(op.outputs[0], [a[0], b[2]])


def picked(c: Labelling, axis: Axis, numbered: Numbered, weight: Ref) -> None:
    """Entries of ``axis`` are picked at numbered positions; where they are of a weight they are experts."""
    c.follow(axis, numbered, _CHOSEN)
    if weight.id in c.weights:
        c.flag(axis, "experts")
        c.stacks.add(c.weights[weight.id])


OPERATORS = (
    Operator(("aten.topk",), _topk),
    Operator(("aten.sort",), _sort, positions=Positions.RULED),
    Operator(("aten.cumsum",), _cumsum, positions=Positions.RULED),
    Operator(("aten.histc",), _histogram, positions=Positions.RULED),
    Operator(("aten.nonzero",), _nonzero),
    Operator(("aten.eq", "aten.ne"), _equal_to, positions=Positions.RULED),
    Operator(("aten.bincount",), _bincount, positions=Positions.RULED),
    Operator(
        ("aten._grouped_mm",),
        _grouped_mm,
        product=matrices,
        positions=Positions.RULED,
        shapes={"aten._grouped_mm.default": shapes.of_grouped_mm},
    ),
)
