"""Normalisation layers: affine parameters follow the axis, and removing a unit changes the statistics."""

from __future__ import annotations

from typing import Any

from prunekit.graph.nodes import Call, Op, Ref
from prunekit.labels.labelling import Labelling
from prunekit.labels.vectors import Axis
from prunekit.operators import shapes
from prunekit.operators.operator import Operator, Scales


def _batch_norm(c: Labelling, op: Op) -> None:
    base, out = op.args[0], op.outputs[0]
    axes = list(c.of(base))
    for ref in op.args[1:5]:
        if isinstance(ref, Ref):
            c.unite(axes[1], c.of(ref)[0])
    if any(argument is True for argument in op.args):  # statistics of what it reads, as a standardised weight has them
        for k, axis in enumerate(axes):
            if k != 1:
                c.flag(axis, "normalised")
    c.set(out, axes)
    for saved in op.outputs[1:]:
        c.set(saved, [axes[1] if s == base.shape[1] else None for s in saved.shape])


def _layer_norm(c: Labelling, op: Op) -> None:
    base, shape = op.args[0], op.args[1]
    axes = list(c.of(base))
    _affine(c, axes, len(shape), [r for r in op.args[2:4] if isinstance(r, Ref)])
    _shape_follows(c, op.call, axes, len(shape), base)
    c.set(op.outputs[0], axes)
    _statistics(c, op.outputs[1:], axes, len(shape))


def _rms_norm(c: Labelling, op: Op) -> None:
    base, shape = op.args[0], op.args[1]
    axes = list(c.of(base))
    _affine(c, axes, len(shape), [r for r in op.args[2:3] if isinstance(r, Ref)])
    _shape_follows(c, op.call, axes, len(shape), base)
    c.set(op.outputs[0], axes)
    _statistics(c, op.outputs[1:], axes, len(shape))


def _affine(c: Labelling, axes: list[Axis], rank: int, affine: list[Ref]) -> None:
    for ref in affine:
        for a, b in zip(axes[-rank:], c.of(ref), strict=True):
            c.unite(a, b)
    for axis in axes[-rank:]:
        c.flag(axis, "normalised")


def _shape_follows(c: Labelling, call: Call | None, axes: list[Axis], rank: int, base: Ref) -> None:
    value: Any = None
    if call is not None and call.name in ("layer_norm", "rms_norm", "native_layer_norm"):
        value = call.args[1] if len(call.args) > 1 else call.kwargs.get("normalized_shape")
    for k in range(rank):
        axis = axes[len(axes) - rank + k]
        if isinstance(value, (tuple, list)):
            c.equate(value[k], axis, base.shape[len(axes) - rank + k])
        else:
            c.freeze(axis, "the normalised shape cannot be followed")


def _statistics(c: Labelling, outputs: tuple[Ref, ...], axes: list[Axis], rank: int) -> None:
    for out in outputs:
        kept = axes[: len(out.shape)] if len(out.shape) == len(axes) else [None] * len(out.shape)
        c.set(out, [a if i < len(axes) - rank else None for i, a in enumerate(kept)])


def _group_norm(c: Labelling, op: Op) -> None:
    base, groups = op.args[0], int(op.args[6])
    axes = list(c.of(base))
    for ref in op.args[1:3]:
        if isinstance(ref, Ref):
            c.unite(axes[1], c.of(ref)[0])
    rows, _ = c.labels.split(axes[1], (groups, base.shape[1] // groups))
    c.flag(axes[1], "normalised")
    call = op.call
    value: Any = None
    if call is not None and call.name == "group_norm":
        value = call.args[1] if len(call.args) > 1 else call.kwargs.get("num_groups")
    if groups > 1 and value is None:
        c.freeze(rows, "the number of norm groups cannot be followed")
    elif groups > 1:
        c.equate(value, rows, groups)
    c.set(op.outputs[0], axes)
    for saved in op.outputs[1:]:
        c.set(saved, [axes[0], rows])


def _softmax(c: Labelling, op: Op) -> None:
    base = op.args[0]
    axes = list(c.of(base))
    if axes:
        c.flag(axes[op.args[1] % len(axes)], "normalised")
    c.set(op.outputs[0], axes)


def _weight_norm(c: Labelling, op: Op) -> None:
    v, g, dim = op.args[0], op.args[1], op.args[2] if len(op.args) > 2 else 0
    axes = list(c.of(v))
    if g.shape[dim] > 1:
        c.unite(axes[dim], c.of(g)[dim])
    for k, axis in enumerate(axes):
        if k != dim:
            c.flag(axis, "normalised")
    c.set(op.outputs[0], axes)
    c.show(op.outputs[0], v)
    for out in op.outputs[1:]:
        c.set(out, c.of(g))


OPERATORS = (
    Operator(
        (
            "aten.native_batch_norm",
            "aten._native_batch_norm_legit_no_training",
            "aten.cudnn_batch_norm",
        ),
        _batch_norm,
        normalises=True,
        shapes={"aten.native_batch_norm.default": shapes.of_batch_norm},
    ),
    Operator(
        (
            "aten._native_batch_norm_legit",
            "aten._native_batch_norm_legit_functional",
            "aten._batch_norm_no_update",
            "aten._batch_norm_with_update",
            "aten.batch_norm",
        ),
        _batch_norm,
    ),
    Operator(
        ("aten.native_layer_norm",),
        _layer_norm,
        scales=Scales.NORM,
        shapes={"aten.native_layer_norm.default": shapes.of_layer_norm},
    ),
    Operator(
        ("aten.layer_norm",),
        _layer_norm,
    ),
    Operator(
        (
            "aten._fused_rms_norm",
            "aten.rms_norm",
        ),
        _rms_norm,
    ),
    Operator(
        ("aten.native_group_norm",),
        _group_norm,
    ),
    Operator(
        (
            "aten._softmax",
            "aten._log_softmax",
            "aten._safe_softmax",
            "aten.softmax",
            "aten.log_softmax",
        ),
        _softmax,
        shapes={"aten._softmax.default": shapes.of_softmax, "aten._safe_softmax.default": shapes.of_safe_softmax},
    ),
    Operator(
        (
            "aten._weight_norm_interface",
            "aten._weight_norm",
        ),
        _weight_norm,
    ),
)
