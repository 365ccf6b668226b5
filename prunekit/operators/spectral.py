"""Fourier transforms: every coefficient reads all positions of the transformed axes; the others pass through."""

from __future__ import annotations

from prunekit.graph.nodes import Op, packet
from prunekit.labels.labelling import Labelling
from prunekit.operators.operator import Operator


def _transform(c: Labelling, op: Op) -> None:
    axes = list(c.of(op.args[0]))
    for d in op.args[1]:
        c.freeze(axes[d], f"{packet(op)} mixes the positions along it")
        axes[d] = None
    c.set(op.outputs[0], axes)


OPERATORS = (
    Operator(
        (
            "aten._fft_r2c",
            "aten._fft_c2c",
            "aten._fft_c2r",
        ),
        _transform,
    ),
)
