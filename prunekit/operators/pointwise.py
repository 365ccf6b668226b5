"""Pointwise operators read all their operands in lockstep, after broadcasting."""

from __future__ import annotations

from collections.abc import Sequence

from prunekit.graph.nodes import Op, Ref, packet
from prunekit.labels.labelling import Labelling
from prunekit.labels.vectors import Axis
from prunekit.operators import shapes
from prunekit.operators.operator import Operator, Positions, Scales, ShapeRule

_ADDITIONS = {"aten.add", "aten.sub", "aten.rsub"}
# torch's recurrent layers add the gates' products of input and state; no stream passes by these
_RECURRENT = (
    *("lstm", "gru", "rnn_tanh", "rnn_relu"),
    *("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
)


def couple_pointwise(c: Labelling, op: Op) -> None:
    tensors = op.inputs
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
    _note_weight(c, op, tensors)
    if len(tensors) == 1 and tensors[0].id in c.weights and packet(op) in ("aten.detach", "aten.alias", "aten.clone"):
        c.show(op.outputs[0], tensors[0])
    elif len(tensors) == 1 and packet(op) in ("aten.detach", "aten.alias", "aten.clone", "aten._to_copy"):
        c.origin[op.outputs[0].id] = tensors[0].id


def _note_weight(c: Labelling, op: Op, tensors: Sequence[Ref]) -> None:
    """A pointwise function of a weight (a norm of it divided out, a mask, a gain) is a weight as well."""
    for out in op.outputs:
        if out.id in c.dependent or out.id in c.weights:
            continue
        named = [c.weights[r.id] for r in tensors if r.id in c.weights and r.shape == out.shape]
        if named:
            c.weights[out.id] = named[0]


def _note_addition(c: Labelling, op: Op, tensors: Sequence[Ref]) -> None:
    """A sum of two activations is a residual connection: its width is the embedding that passes through blocks.

    Not so where both are pointwise functions of one tensor, as inside an activation function that is written out.
    """
    moving = [t for t in tensors if t.id in c.dependent and t.id not in c.weights]  # a weight may be picked by inputs
    roots = {c.labels.roots.get(t.id, t.id) for t in moving}
    for out in op.outputs:
        if len(roots) == 1:
            c.labels.roots.setdefault(out.id, next(iter(roots)))
    if packet(op) not in _ADDITIONS or not op.outputs:
        return
    out = op.outputs[0]
    c.added.add(out.id)
    if len(tensors) != 2 or len(roots) < 2 or len(moving) < 2 or tensors[0].shape != tensors[1].shape:
        return
    if op.call is not None and op.call.name in _RECURRENT:
        return
    for axis in c.of(out):
        c.flag(axis, "residual")


def _of_one(*names: str, in_place: bool = True) -> dict[str, ShapeRule]:
    """Shape rules of functions of one tensor."""
    found: dict[str, ShapeRule] = {f"aten.{name}.default": shapes.of_same for name in names}
    return found | ({f"aten.{name}_.default": shapes.of_itself for name in names} if in_place else {})


def _of_two(name: str) -> dict[str, ShapeRule]:
    """Shape rules of a function of two."""
    return {f"aten.{name}.Tensor": shapes.of_binary, f"aten.{name}_.Tensor": shapes.of_binary_in_place}


OPERATORS = (
    Operator(
        ("aten.clone",),
        couple_pointwise,
        positions=Positions.KEPT,
        scales=Scales.VIEW,
        rearranges=True,
        shapes={"aten.clone.default": shapes.of_clone},
    ),
    Operator(
        ("aten.detach",),
        couple_pointwise,
        positions=Positions.KEPT,
        scales=Scales.VIEW,
        takes_time=False,
    ),
    Operator(
        ("aten.alias",),
        couple_pointwise,
        positions=Positions.KEPT,
        scales=Scales.VIEW,
        rearranges=True,
        takes_time=False,
    ),
    Operator(
        ("aten.lift_fresh",),
        couple_pointwise,
        positions=Positions.KEPT,
        takes_time=False,
    ),
    Operator(
        ("aten._to_copy",),
        couple_pointwise,
        positions=Positions.KEPT,
        scales=Scales.LINEAR,
    ),
    Operator(
        (
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
        ),
        couple_pointwise,
        shapes={
            **_of_one("hardtanh", "hardswish", "hardsigmoid", "silu", "leaky_relu", "gelu"),
            **_of_one("mish", "elu", in_place=False),
            "aten.pow.Tensor_Scalar": shapes.of_binary,
            "aten.where.self": shapes.of_where,
        },
    ),
    Operator(
        (
            "aten.abs",
            "aten.exp",
            "aten.relu",
            "aten.rsqrt",
            "aten.sigmoid",
            "aten.sqrt",
            "aten.tanh",
        ),
        shapes={**_of_one("relu", "sigmoid", "tanh"), **_of_one("abs", "exp", "rsqrt", "sqrt", in_place=False)},
    ),
    Operator(
        (
            "aten.add",
            "aten.sub",
        ),
        scales=Scales.SUM,
        shapes={**_of_two("add"), **_of_two("sub")},
    ),
    Operator(
        ("aten.div",),
        scales=Scales.QUOTIENT,
        shapes={**_of_two("div")},
    ),
    Operator(
        ("aten.mul",),
        scales=Scales.PRODUCT,
        shapes={**_of_two("mul"), "aten.mul.Scalar": shapes.of_binary},
    ),
    Operator(
        ("aten.neg",),
        scales=Scales.LINEAR,
        shapes={**_of_one("neg", in_place=False)},
    ),
)
