"""Pooling, resizing and padding: leading axes pass through, the axes that a window slides over stay."""

from __future__ import annotations

from prunekit.graph.nodes import Op, packet
from prunekit.labels.labelling import Labelling
from prunekit.operators.operator import Operator

_RANKS = {"1d": 1, "2d": 2, "3d": 3}


def _window(c: Labelling, op: Op) -> None:
    name = packet(op)
    spatial = next(rank for text, rank in _RANKS.items() if text in name)
    axes = list(c.of(op.args[0]))
    for axis in axes[-spatial:]:
        c.freeze(axis, "a window slides over it")
    for out in op.outputs:
        c.set(out, [*axes[:-spatial], *([None] * spatial)])


def _unpool(c: Labelling, op: Op) -> None:
    spatial = 2 if packet(op) == "aten.max_unpool2d" else 3
    data, where = list(c.of(op.args[0])), c.of(op.args[1])
    for axis, index in zip(data[:-spatial], where[:-spatial], strict=True):
        c.unite(axis, index)
    for axis in (*data[-spatial:], *where[-spatial:]):
        c.freeze(axis, "a window slides over it")
    c.set(op.outputs[0], [*data[:-spatial], *([None] * spatial)])


def _grid_sampler(c: Labelling, op: Op) -> None:
    axes = list(c.of(op.args[0]))
    for axis in (*axes[2:], *c.of(op.args[1])):
        c.freeze(axis, "it is sampled by position")
    c.set(op.outputs[0], [*axes[:2], None, None])


OPERATORS = (
    Operator(
        (
            "aten.avg_pool1d",
            "aten.avg_pool2d",
            "aten.avg_pool3d",
            "aten._adaptive_avg_pool2d",
            "aten._adaptive_avg_pool3d",
            "aten.adaptive_max_pool2d",
            "aten.adaptive_max_pool3d",
            "aten.max_pool2d_with_indices",
            "aten.max_pool3d_with_indices",
            "aten.reflection_pad1d",
            "aten.reflection_pad2d",
            "aten.replication_pad1d",
            "aten.replication_pad2d",
            "aten.upsample_nearest1d",
            "aten.upsample_nearest2d",
            "aten._upsample_nearest_exact2d",
            "aten.upsample_linear1d",
            "aten.upsample_bilinear2d",
            "aten._upsample_bilinear2d_aa",
            "aten.upsample_bicubic2d",
            "aten._upsample_bicubic2d_aa",
            "aten.upsample_trilinear3d",
            "aten.upsample_nearest3d",
        ),
        _window,
    ),
    Operator(
        (
            "aten.max_unpool2d",
            "aten.max_unpool3d",
        ),
        _unpool,
    ),
    Operator(
        ("aten.grid_sampler_2d",),
        _grid_sampler,
    ),
)
