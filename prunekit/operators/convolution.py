"""Convolutions of any rank, grouped, depthwise and transposed."""

from __future__ import annotations

from typing import Any

from prunekit.graph.nodes import Call, Op
from prunekit.labels.labelling import Labelling
from prunekit.labels.vectors import Axis
from prunekit.operators import shapes
from prunekit.operators.operator import Operator
from prunekit.operators.product_costs import convolved


def _convolution(c: Labelling, op: Op) -> None:
    base, weight, bias = op.args[0], op.args[1], op.args[2]
    transposed, groups = bool(op.args[6]), int(op.args[8])
    out = op.outputs[0]
    data, kernel = c.of(base), c.of(weight)
    batched = len(base.shape) == len(weight.shape)
    channel = 1 if batched else 0
    passed = [_passed(op, k) for k in range(len(weight.shape) - 2)]
    for axis, through in zip(data[channel + 1 :], passed, strict=True):
        if not through:
            c.freeze(axis, "a convolution slides over it")
    for axis in kernel[2:]:
        c.freeze(axis, "it is a kernel size")
    for axis in kernel[:2]:
        c.flag(axis, "conv")
    produced = _channels(c, op, data[channel], kernel, transposed, groups, base.shape[channel], out.shape[channel])
    if bias is not None:
        c.unite(produced, c.of(bias)[0])
    spatial = [axis if through else None for axis, through in zip(data[channel + 1 :], passed, strict=True)]
    c.set(out, [*data[:channel], produced, *spatial])


def _passed(op: Op, k: int) -> bool:
    """Whether the kernel takes one position at a time on spatial axis ``k``, so that the axis passes through."""
    weight, stride, padding = op.args[1], op.args[3], op.args[4]
    return bool(weight.shape[2 + k] == 1 and stride[k] == 1 and padding[k] == 0)


def _channels(
    c: Labelling, op: Op, channels: Axis, kernel: list[Axis], transposed: bool, groups: int, read: int, written: int
) -> Axis:
    """Unites the input channels with the kernel and returns the labels of the output channels."""
    if groups == 1:
        c.unite(channels, kernel[0 if transposed else 1])
        return kernel[1 if transposed else 0]
    grouped, within = c.labels.split(channels, (groups, read // groups))
    if transposed:  # weight (in, out / groups, ...)
        rows, columns = c.labels.split(kernel[0], (groups, read // groups))
        c.unite(grouped, rows)
        c.unite(within, columns)
        produced = c.labels.merge([rows, kernel[1]], (groups, written // groups))
        out_rows = rows
    else:  # weight (out, in / groups, ...)
        out_rows, _ = c.labels.split(kernel[0], (groups, written // groups))
        c.unite(grouped, out_rows)
        c.unite(within, kernel[1])
        produced = kernel[0]
    _count_follows(c, op.call, out_rows, groups)
    return produced


def _count_follows(c: Labelling, call: Call | None, rows: Axis, groups: int) -> None:
    value: Any = None
    if call is not None and call.name.startswith("conv"):
        value = call.args[6] if len(call.args) > 6 else call.kwargs.get("groups")
    if value is None:
        c.freeze(rows, "the number of convolution groups cannot be followed")
    else:
        c.equate(value, rows, groups)


OPERATORS = (
    Operator(
        (
            "aten.convolution",
            "aten._convolution",
        ),
        _convolution,
        product=convolved,
        shapes={"aten.convolution.default": shapes.of_convolution},
    ),
)
