"""Complex numbers seen as pairs of real ones, and back."""

from __future__ import annotations

from prunekit.coupling.coupler import Coupler, rule
from prunekit.graph.nodes import Op


@rule("aten.view_as_complex")
def view_as_complex(c: Coupler, op: Op) -> None:
    axes = list(c.of(op.args[0]))
    c.freeze(axes.pop(), "it holds the real and the imaginary part")
    c.set(op.outputs[0], axes)


@rule("aten.view_as_real")
def view_as_real(c: Coupler, op: Op) -> None:
    c.set(op.outputs[0], [*c.of(op.args[0]), None])
