"""Packed sequences: rows of all sequences in one axis, what each of them holds unchanged."""

from __future__ import annotations

from prunekit.graph.nodes import Op
from prunekit.labels.labelling import Labelling
from prunekit.operators.operator import Operator, Scales


def _packed_rows(c: Labelling, op: Op) -> None:
    """(sequences (B, T, ...) or (T, B, ...), lengths (B,)) -> (rows (sum, ...), batch sizes (T,))."""
    axes = c.of(op.args[0])
    for axis in axes[:2]:
        c.freeze(axis, "its sequences are packed")
    c.set(op.outputs[0], [None, *axes[2:]])
    c.set(op.outputs[1], [None])


OPERATORS = (Operator(("aten._pack_padded_sequence",), _packed_rows, scales=Scales.PART),)
