"""Fake quantisation: rounding to a grid whose scales and zero points are one, or one a channel."""

from __future__ import annotations

from prunekit.graph.nodes import Op
from prunekit.labels.labelling import Labelling
from prunekit.operators.operator import Operator


def _per_tensor(c: Labelling, op: Op) -> None:
    for out in op.outputs:
        c.set(out, c.of(op.args[0]))
    c.show(op.outputs[0], op.args[0])


def _per_channel(c: Labelling, op: Op) -> None:
    """(x, scale (C,), zero_point (C,), axis, ...): one grid a place of one axis."""
    base, axis = op.args[0], op.args[3]
    for grid in op.args[1:3]:
        c.unite(c.of(base)[axis], c.of(grid)[0])
    for out in op.outputs:
        c.set(out, c.of(base))
    c.show(op.outputs[0], base)


OPERATORS = (
    Operator(("aten.fake_quantize_per_tensor_affine", "aten.fake_quantize_per_tensor_affine_cachemask"), _per_tensor),
    Operator(("aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams",), _per_tensor),
    Operator(
        ("aten.fake_quantize_per_channel_affine", "aten.fake_quantize_per_channel_affine_cachemask"),
        _per_channel,
        integers=(2,),
    ),
)
