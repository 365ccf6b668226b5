"""Pointwise operators read all their operands in lockstep, after broadcasting."""

from __future__ import annotations

from prunekit.coupling.coupler import Coupler, packet, rule
from prunekit.coupling.labels import Axis
from prunekit.trace.record import Op, Ref
from prunekit.trace.tree import of_type

_ADDITIONS = {"aten.add", "aten.sub", "aten.rsub"}


@rule(
    "pointwise",
    "aten.clone",
    "aten.detach",
    "aten.alias",
    "aten.lift_fresh",
    "aten._to_copy",
    "aten.copy",
    "aten.fill",
    "aten.zero",
    "aten.native_dropout",
    "aten.bernoulli",
    "aten.dropout",
    "aten.masked_fill",
    "aten.where",
    "aten.hardtanh",
    "aten.hardswish",
    "aten.hardsigmoid",
    "aten.hardshrink",
    "aten.softshrink",
    "aten.threshold",
    "aten.celu",
    "aten.selu",
    "aten.relu6",
    "aten.mish",
    "aten.silu",
    "aten.prelu",
    "aten.clamp",
    "aten.floor_divide",
    "aten.isnan",
    "aten.isinf",
    "aten.addcmul",
    "aten.addcdiv",
    "aten.lerp",
    "aten.pow",
    "aten.polar",
    "aten.complex",
    "aten.feature_dropout",
    "aten.alpha_dropout",
    "aten._conj",
    "aten.normal",
    "aten.uniform",
    "aten.exponential",
    "aten.leaky_relu",
    "aten.gelu",
    "aten.elu",
    "aten._prelu_kernel",
    "aten.softplus",
    "aten.log_sigmoid_forward",
    "aten.nan_to_num",
    "aten.view_as_real_copy",
    "aten.rrelu_with_noise",
)
def pointwise(c: Coupler, op: Op) -> None:
    tensors = list(of_type((op.args, op.kwargs), Ref))
    for out in op.outputs:
        if out.id in c.axes:  # written in place: its own labels lead
            axes: list[Axis] = list(c.axes[out.id])
            seen = [s > 1 for s in out.shape]
        else:
            axes, seen = [None] * len(out.shape), [False] * len(out.shape)
        for ref in tensors:
            offset = len(out.shape) - len(ref.shape)
            for k, axis in enumerate(c.of(ref)):
                at = k + offset
                if at < 0 or ref.shape[k] == 1 or ref is out:
                    continue
                if seen[at]:
                    c.unite(axes[at], axis)
                else:
                    axes[at], seen[at] = axis, True
        if out.id not in c.axes:
            c.set(out, axes)
    _note_addition(c, op, tensors)
    if len(tensors) == 1 and tensors[0].id in c.weights and packet(op) in ("aten.detach", "aten.alias", "aten.clone"):
        c.show(op.outputs[0], tensors[0])
    elif len(tensors) == 1 and packet(op) in ("aten.detach", "aten.alias", "aten.clone", "aten._to_copy"):
        c.origin[op.outputs[0].id] = tensors[0].id


def _note_addition(c: Coupler, op: Op, tensors: list[Ref]) -> None:
    """A sum of two activations is a residual connection: its width is the embedding that passes through blocks."""
    if packet(op) not in _ADDITIONS or not op.outputs:
        return
    out = op.outputs[0]
    c.added.add(out.id)
    if len(tensors) == 2 and all(t.id in c.dependent for t in tensors) and tensors[0].shape == tensors[1].shape:
        for axis in c.of(out):
            c.labels.flag(axis, "residual")
