"""Operators of detectors: regions cut out of feature maps, kernels at learned places, boxes that are suppressed."""

from __future__ import annotations

from prunekit.graph.nodes import Op, Ref
from prunekit.labels.labelling import Labelling
from prunekit.labels.vectors import Axis
from prunekit.operators.operator import Operator, ProductCost


def _regions(c: Labelling, op: Op) -> None:
    """(N, C, H, W) and boxes -> (boxes, C, h, w): channels pass, places are sampled."""
    data, boxes = op.args[0], op.args[1]
    for axis in (*c.of(data)[2:], *c.of(boxes)):
        c.freeze(axis, "regions are sampled from it")
    for out in op.outputs:
        c.set(out, [None, c.of(data)[1], *[None] * (len(out.shape) - 2)])


def _deformable(c: Labelling, op: Op) -> None:
    """data (N, C, H, W), weight (O, C / groups, h, w), offsets, mask, bias (O,) -> (N, O, H', W')."""
    data, weight, offset, mask, bias = op.args[:5]
    groups, offset_groups = op.args[11], op.args[12]
    kernel: list[Axis] = c.of(weight)
    for axis in (*c.of(data)[2:], *kernel[2:], *c.of(offset)[1:], *c.of(mask)[1:]):
        c.freeze(axis, "a deformable convolution places its kernel by it")
    for axis in kernel[:2]:
        c.flag(axis, "conv")
    if groups == 1 and offset_groups == 1:
        c.unite(c.of(data)[1], kernel[1])
    else:
        for axis in (c.of(data)[1], kernel[0], kernel[1]):
            c.freeze(axis, "a deformable convolution divides it into groups")
    if isinstance(bias, Ref):
        c.unite(kernel[0], c.of(bias)[0])
    c.set(op.outputs[0], [c.of(data)[0], kernel[0], None, None])


def _suppressed(c: Labelling, op: Op) -> None:
    for ref in op.inputs:
        for axis in c.of(ref):
            c.freeze(axis, "boxes are chosen by it")
    c.set(op.outputs[0], [None])


def _deformed(op: Op) -> ProductCost:
    weight, out = op.args[1], op.outputs[0]
    axes = (*((weight, k) for k in range(4)), (out, 0), (out, 2), (out, 3))
    return ProductCost(axes, (weight,))


OPERATORS = (
    Operator(("torchvision.roi_align", "torchvision.roi_pool"), _regions),
    Operator(("torchvision.deform_conv2d",), _deformable, product=_deformed),
    Operator(("torchvision.nms",), _suppressed),
)
