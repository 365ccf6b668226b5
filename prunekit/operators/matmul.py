"""Matrix products: contracted axes are read in lockstep, the others pass through."""

from __future__ import annotations

from prunekit.graph.nodes import Op, Ref
from prunekit.labels.labelling import Labelling
from prunekit.labels.vectors import Axis
from prunekit.operators import shapes
from prunekit.operators.operator import Operator, Scales
from prunekit.operators.product_costs import matrices, matrices_after_bias


def _mm(c: Labelling, op: Op) -> None:
    c.set(op.outputs[0], _couple_product(c, op.args[0], op.args[1]))


def _addmm(c: Labelling, op: Op) -> None:
    _with_bias(c, op, _couple_product(c, op.args[1], op.args[2]))


def _bmm(c: Labelling, op: Op) -> None:
    c.set(op.outputs[0], _batched(c, op.args[0], op.args[1]))


def _baddbmm(c: Labelling, op: Op) -> None:
    _with_bias(c, op, _batched(c, op.args[1], op.args[2]))


def _mv(c: Labelling, op: Op) -> None:
    matrix, vector = op.args[0], op.args[1]
    c.unite(c.of(matrix)[1], c.of(vector)[0])
    c.set(op.outputs[0], c.of(matrix)[:1])


def _dot(c: Labelling, op: Op) -> None:
    c.unite(c.of(op.args[0])[0], c.of(op.args[1])[0])
    c.set(op.outputs[0], [])


def _trilinear(c: Labelling, op: Op) -> None:
    """Three factors, each unsqueezed at given places, multiplied and summed over some axes: a bilinear layer."""
    rank = len(op.args[0].shape) + len(op.args[3])
    aligned: list[Axis] = [None] * rank
    seen = [False] * rank
    for ref, expanded in zip(op.args[:3], op.args[3:6], strict=True):
        for at, axis in zip([d for d in range(rank) if d not in expanded], c.of(ref), strict=True):
            if seen[at]:
                c.unite(aligned[at], axis)
            else:
                aligned[at], seen[at] = axis, True
            if ref.id in c.weights:
                c.flag(axis, "linear")
    c.set(op.outputs[0], [a for d, a in enumerate(aligned) if d not in op.args[6]])


def _distances(c: Labelling, op: Op) -> None:
    """Distances between the rows of two tensors: the last axis is read in lockstep, and reduced."""
    a, b = c.of(op.args[0]), c.of(op.args[1])
    c.unite(a[-1], b[-1])
    c.flag(a[-1], "normalised")
    for x, y in zip(a[:-2], b[:-2], strict=True):
        c.unite(x, y)
    c.set(op.outputs[0], [*a[:-1], b[-2]])


def _couple_product(c: Labelling, a: Ref, b: Ref) -> list[Axis]:
    c.unite(c.of(a)[1], c.of(b)[0])
    for ref in (a, b):
        if ref.id in c.weights:
            for axis in c.of(ref):
                c.flag(axis, "linear")
    return [c.of(a)[0], c.of(b)[1]]


def _batched(c: Labelling, a: Ref, b: Ref) -> list[Axis]:
    c.unite(c.of(a)[0], c.of(b)[0])
    c.unite(c.of(a)[2], c.of(b)[1])
    result = [c.of(a)[0], c.of(a)[1], c.of(b)[2]]
    if a.id in c.dependent and b.id in c.dependent and a.id not in c.weights and b.id not in c.weights:
        # A product of two activations is attention: what it is batched over are heads, the rest is inside a head.
        c.flag(result[0], "heads")
        for axis in (c.of(a)[1], c.of(a)[2], c.of(b)[2]):
            c.flag(axis, "head_dim")
    for ref in (a, b):
        if ref.id in c.weights:
            c.flag(c.of(ref)[0], "stacked")
            c.stacks.add(c.weights[ref.id])
            for axis in c.of(ref):
                c.flag(axis, "linear")
    return result


def _with_bias(c: Labelling, op: Op, axes: list[Axis]) -> None:
    bias, out = op.args[0], op.outputs[0]
    offset = len(axes) - len(bias.shape)
    for k, axis in enumerate(c.of(bias)):
        if bias.shape[k] > 1:
            c.unite(axes[k + offset], axis)
    c.set(out, axes)


OPERATORS = (
    Operator(
        ("aten.mm",),
        _mm,
        product=matrices,
        shapes={"aten.mm.default": shapes.of_mm},
    ),
    Operator(
        ("aten.addmm",),
        _addmm,
        product=matrices_after_bias,
        shapes={"aten.addmm.default": shapes.of_addmm},
    ),
    Operator(
        ("aten.bmm",),
        _bmm,
        scales=Scales.BATCHED,
        product=matrices,
        shapes={"aten.bmm.default": shapes.of_bmm},
    ),
    Operator(
        ("aten.baddbmm",),
        _baddbmm,
        product=matrices_after_bias,
    ),
    Operator(
        ("aten.mv",),
        _mv,
    ),
    Operator(
        (
            "aten.dot",
            "aten.vdot",
        ),
        _dot,
    ),
    Operator(
        ("aten._trilinear",),
        _trilinear,
    ),
    Operator(
        (
            "aten._euclidean_dist",
            "aten._cdist_forward",
        ),
        _distances,
    ),
)
