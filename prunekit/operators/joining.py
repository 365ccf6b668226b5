"""Operators that put tensors side by side."""

from __future__ import annotations

import numpy as np

from prunekit.graph.nodes import Op, Ref
from prunekit.labels.labelling import Labelling
from prunekit.labels.vectors import FIXED, Axis, frozen_copy
from prunekit.operators import shapes
from prunekit.operators.operator import Operator, Positions, Scales


def _cat(c: Labelling, op: Op) -> None:
    tensors: list[Ref] = [t for t in op.args[0] if 0 not in t.shape or len(t.shape) > 1]
    out = op.outputs[0]
    dim = (op.args[1] if len(op.args) > 1 else op.kwargs.get("dim", 0)) % len(out.shape)
    axes: list[Axis] = []
    for k in range(len(out.shape)):
        if k == dim:
            axes.append(_joined([c.of(t)[k] for t in tensors], [t.shape[k] for t in tensors]))
        else:
            first = c.of(tensors[0])[k]
            for t in tensors[1:]:
                c.unite(first, c.of(t)[k])
            axes.append(first)
    c.set(out, axes)
    _numbers_joined(c, tensors, out)


def _numbers_joined(c: Labelling, tensors: list[Ref], out: Ref) -> None:
    """Positions along one axis stay such where they are put side by side; other numbers among them tie the axis."""
    held = [c.numbered[t.id] for t in tensors if t.id in c.numbered]
    if len(held) < len(tensors) or len({(numbered.kind, numbered.axis.size) for numbered in held}) > 1:
        for numbered in held:
            c.freeze(numbered.axis, "positions along it are put beside other numbers")
        return
    for numbered in held[1:]:
        c.unite(held[0].axis, numbered.axis)
    if held:
        c.choose(held[0].axis, min(out.shape[-1], held[0].axis.size - 1))  # one of each, as by repeated maxima
        c.number(out, held[0].axis, held[0].kind)


def _joined(parts: list[Axis], sizes: list[int]) -> Axis:
    if all(p is None for p in parts):
        return None
    filled = [np.full(s, FIXED, np.int64) if p is None else p for p, s in zip(parts, sizes, strict=True)]
    return frozen_copy(np.concatenate(filled))


def _stack(c: Labelling, op: Op) -> None:
    tensors: list[Ref] = list(op.args[0])
    out = op.outputs[0]
    dim = (op.args[1] if len(op.args) > 1 else op.kwargs.get("dim", 0)) % len(out.shape)
    axes = list(c.of(tensors[0]))
    for t in tensors[1:]:
        for a, b in zip(axes, c.of(t), strict=True):
            c.unite(a, b)
    axes.insert(dim, None)
    c.set(out, axes)


def _constant_pad(c: Labelling, op: Op) -> None:
    base, out, pad = op.args[0], op.outputs[0], op.args[1]
    axes = list(c.of(base))
    for i in range(len(pad) // 2):
        d = len(axes) - 1 - i
        before, after = pad[2 * i], pad[2 * i + 1]
        axis = axes[d]
        if axis is None or (before == 0 and after == 0):
            continue
        if before < 0 or after < 0:
            c.freeze(axis, "it is cropped by a constant")
            axes[d] = None
            continue
        ends = [np.full(n, FIXED, np.int64) for n in (before, after)]
        axes[d] = frozen_copy(np.concatenate([ends[0], axis, ends[1]]))
    c.set(out, axes)


OPERATORS = (
    Operator(
        ("aten.cat",),
        _cat,
        positions=Positions.RULED,
        scales=Scales.SUM,
        shapes={"aten.cat.default": shapes.of_cat},
    ),
    Operator(
        (
            "aten.concat",
            "aten.concatenate",
        ),
        _cat,
        positions=Positions.RULED,
    ),
    Operator(
        ("aten.stack",),
        _stack,
        scales=Scales.SUM,
    ),
    Operator(
        ("aten.constant_pad_nd",),
        _constant_pad,
        scales=Scales.PADDED,
    ),
)
