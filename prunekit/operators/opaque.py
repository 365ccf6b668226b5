"""Modules that were followed from the outside only: everything that they read or write stays whole."""

from __future__ import annotations

from prunekit.graph.nodes import Op, Ref
from prunekit.labels.labelling import Labelling
from prunekit.operators.operator import Operator


def _opaque(c: Labelling, op: Op) -> None:
    reason = f"module {op.module} decides by the values that it sees"
    for ref in op.args:
        if isinstance(ref, Ref):
            for axis in c.of(ref):
                c.freeze(axis, reason)
    for out in op.outputs:
        c.set(out, [None] * len(out.shape))


OPERATORS = (
    Operator(
        ("prunekit.opaque",),
        _opaque,
    ),
)
