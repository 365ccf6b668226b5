"""Complex numbers seen as pairs of real ones, and back."""

from __future__ import annotations

from prunekit.graph.nodes import Op
from prunekit.labels.labelling import Labelling
from prunekit.operators.operator import Operator, Scales


def _view_as_complex(c: Labelling, op: Op) -> None:
    axes = list(c.of(op.args[0]))
    c.freeze(axes.pop(), "it holds the real and the imaginary part")
    c.set(op.outputs[0], axes)


def _view_as_real(c: Labelling, op: Op) -> None:
    c.set(op.outputs[0], [*c.of(op.args[0]), None])


OPERATORS = (
    Operator(
        ("aten.view_as_complex",),
        _view_as_complex,
        scales=Scales.LINEAR,
    ),
    Operator(
        ("aten.view_as_real",),
        _view_as_real,
        scales=Scales.LINEAR,
    ),
)
