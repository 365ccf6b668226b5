"""What products cost: the axes whose lengths are multiplied."""

from __future__ import annotations

from prunekit.graph.nodes import Op, Ref
from prunekit.operators.operator import ProductCost


def matrices(op: Op) -> ProductCost:
    """``op(a, b)``: every place of a with every column of b."""
    return _product(op.args[0], op.args[1])


def matrices_after_bias(op: Op) -> ProductCost:
    """``op(bias, a, b)``."""
    return _product(op.args[1], op.args[2])


def convolved(op: Op) -> ProductCost:
    """``op(data, weight, ...)``: every place of the weight with every place of the output, or of a transposed input."""
    data, weight, is_transposed = op.args[0], op.args[1], op.args[6]
    spatial = data if is_transposed else op.outputs[0]
    channel = 1 if len(spatial.shape) == len(weight.shape) else 0
    return ProductCost((*_axes(weight), *(pair for pair in _axes(spatial) if pair[1] != channel)), (weight,))


def _product(a: Ref, b: Ref) -> ProductCost:
    return ProductCost((*_axes(a), (b, len(b.shape) - 1)), (a, b))


def _axes(ref: Ref) -> tuple[tuple[Ref, int], ...]:
    return tuple((ref, axis) for axis in range(len(ref.shape)))
