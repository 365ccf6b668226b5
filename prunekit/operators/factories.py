"""Tensors made from nothing: filled ones may take any size, those that count positions may not."""

from __future__ import annotations

from prunekit.graph.nodes import Op
from prunekit.labels.labelling import Labelling
from prunekit.operators import shapes
from prunekit.operators.operator import Operator, Positions, Scales

_NAMED = (
    *("zeros", "ones", "empty", "full", "rand", "randn", "new_zeros", "new_ones", "new_empty", "new_full"),
    *("new", "one_hot"),
)
_SIZED_BY_INPUT = (
    "pad",
    "_pad_packed_sequence",
)  # calls that make a tensor of their input's sizes and fill it part by part


def _filled(c: Labelling, op: Op) -> None:
    """Free labels: the size arguments of the call must follow whatever the tensor is combined with."""
    out = op.outputs[0]
    axes = [c.labels.fresh(s) if s > 1 else None for s in out.shape]
    if op.call is None or op.call.name not in (*_NAMED, *_SIZED_BY_INPUT):
        for axis in axes:
            c.freeze(axis, "a tensor of constant size is created")
    c.set(out, axes)


def _couple_like(c: Labelling, op: Op) -> None:
    c.set(op.outputs[0], c.of(op.args[0]))


def _positions(c: Labelling, op: Op) -> None:
    for out in op.outputs:
        c.set(out, [None] * len(out.shape))
    if op.call is not None and op.call.name == "arange" and len(op.call.args) == 1:
        c.ranges[op.outputs[0].id] = op.call.args[0]


def _triangle(c: Labelling, op: Op) -> None:
    axes = list(c.of(op.args[0]))
    for axis in axes[-2:]:
        c.freeze(axis, "a triangle of it is taken")
    c.set(op.outputs[0], axes)


OPERATORS = (
    Operator(
        (
            "aten.zeros",
            "aten.new_zeros",
        ),
        _filled,
        scales=Scales.ZEROS,
        positions=Positions.RULED,
    ),
    Operator(
        (
            "aten.ones",
            "aten.empty",
            "aten.full",
            "aten.rand",
            "aten.randn",
            "aten.new_ones",
            "aten.new_empty",
            "aten.new_full",
            "aten.empty_strided",
            "aten.new_empty_strided",
        ),
        _filled,
        positions=Positions.RULED,
    ),
    Operator(
        ("aten.zeros_like",),
        _couple_like,
        scales=Scales.ZEROS,
        positions=Positions.RULED,
    ),
    Operator(
        (
            "aten.ones_like",
            "aten.empty_like",
            "aten.full_like",
            "aten.rand_like",
            "aten.randn_like",
        ),
        _couple_like,
        positions=Positions.RULED,
    ),
    Operator(
        (
            "aten.arange",
            "aten.linspace",
            "aten.eye",
            "aten.scalar_tensor",
            "aten.tril_indices",
            "aten.triu_indices",
            "aten._local_scalar_dense",
            "aten.sym_size",
            "aten.is_same_size",
            "aten._assert_tensor_metadata",
            "aten._assert_async",
        ),
        _positions,
    ),
    Operator(
        (
            "aten.tril",
            "aten.triu",
        ),
        _triangle,
        shapes={"aten.tril.default": shapes.of_triangle, "aten.triu.default": shapes.of_triangle},
    ),
)
