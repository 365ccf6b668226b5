"""Modules that were followed from the outside only: everything that they read or write stays whole."""

from __future__ import annotations

from prunekit.coupling.coupler import Coupler, rule
from prunekit.graph.nodes import Op, Ref


@rule("prunekit.opaque")
def opaque(c: Coupler, op: Op) -> None:
    reason = f"module {op.module} decides by the values that it sees"
    for ref in op.args:
        if isinstance(ref, Ref):
            for axis in c.of(ref):
                c.freeze(axis, reason)
    for out in op.outputs:
        c.set(out, [None] * len(out.shape))
