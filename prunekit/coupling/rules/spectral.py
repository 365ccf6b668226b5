"""Fourier transforms: every coefficient reads all positions of the transformed axes; the others pass through."""

from __future__ import annotations

from prunekit.coupling.coupler import Coupler, packet, rule
from prunekit.graph.nodes import Op


@rule("aten._fft_r2c", "aten._fft_c2c", "aten._fft_c2r")
def transform(c: Coupler, op: Op) -> None:
    axes = list(c.of(op.args[0]))
    for d in op.args[1]:
        c.freeze(axes[d], f"{packet(op)} mixes the positions along it")
        axes[d] = None
    c.set(op.outputs[0], axes)
