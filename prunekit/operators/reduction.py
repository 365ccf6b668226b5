"""Reductions: the reduced axes vanish; what depends on positions along an axis freezes it."""

from __future__ import annotations

from prunekit.graph.nodes import Op, packet
from prunekit.labels.labelling import Labelling
from prunekit.operators import shapes
from prunekit.operators.operator import Operator, Scales
from prunekit.operators.pointwise import couple_pointwise

_LINEAR = {"aten.sum"}


def _reduce(c: Labelling, op: Op) -> None:
    base = op.args[0]
    if len(op.args) > 1 and hasattr(op.args[1], "shape"):  # max(a, b): pointwise
        couple_pointwise(c, op)
        return
    position = 2 if packet(op) in ("aten.linalg_vector_norm", "aten.norm") else 1
    dims = op.args[position] if len(op.args) > position else op.kwargs.get("dim")
    rank = len(base.shape)
    if dims is None or dims == []:
        gone = set(range(rank))
    else:
        gone = {d % rank for d in (dims if isinstance(dims, (list, tuple)) else [dims])} if rank else set()
    axes = c.of(base)
    for d in gone:
        if packet(op) not in _LINEAR:
            c.flag(axes[d], "normalised")
    indices = packet(op) in ("aten.max", "aten.min") and len(op.outputs) > 1
    for k, out in enumerate(op.outputs):
        if indices and k == 1:
            for d in gone:
                c.number(out, axes[d])
        kept = len(out.shape) == rank
        c.set(out, [None if i in gone else a for i, a in enumerate(axes) if kept or i not in gone])


def positional(c: Labelling, op: Op) -> None:
    """The order along one axis matters, so that axis stays as it is; the others pass through."""
    base = op.args[0]
    rank = len(base.shape)
    position = 2 if packet(op) in ("aten.topk", "aten.kthvalue") else 1
    dim = op.args[position] if len(op.args) > position else op.kwargs.get("dim", -1)
    if isinstance(dim, bool):
        dim = -1
    axes = list(c.of(base))
    if dim is None:
        for axis in axes:
            c.freeze(axis, f"{packet(op)} depends on the order along it")
        for out in op.outputs:
            c.set(out, [None] * len(out.shape))
        return
    if rank:
        c.freeze(axes[dim % rank], f"{packet(op)} depends on the order along it")
        axes[dim % rank] = None
    for out in op.outputs:
        c.set(out, axes if len(out.shape) == rank else [a for i, a in enumerate(axes) if i != dim % rank])


OPERATORS = (
    Operator(
        (
            "aten.sum",
            "aten.mean",
        ),
        _reduce,
        scales=Scales.LINEAR,
        shapes={"aten.mean.dim": shapes.of_mean},
    ),
    Operator(
        (
            "aten.var",
            "aten.std",
            "aten.var_mean",
            "aten.std_mean",
            "aten.amax",
            "aten.amin",
            "aten.aminmax",
            "aten.prod",
            "aten.logsumexp",
            "aten.linalg_vector_norm",
            "aten.norm",
            "aten.all",
            "aten.any",
            "aten.nansum",
            "aten.max",
            "aten.min",
        ),
        _reduce,
    ),
    Operator(
        (
            "aten.argmax",
            "aten.argmin",
            "aten.cumprod",
            "aten.cummax",
            "aten.cummin",
            "aten.logcumsumexp",
            "aten.argsort",
            "aten.kthvalue",
            "aten.median",
            "aten.mode",
        ),
        positional,
    ),
)
