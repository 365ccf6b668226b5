"""What is known of an operator: one value, read by everything that meets it in a trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from prunekit.graph.nodes import Op, Ref
from prunekit.labels.labelling import Labelling

Rule = Callable[[Labelling, Op], None]
ShapeRule = Callable[..., Any]


class Scales(Enum):
    """How the result of an operator is scaled where its operands are."""

    UNKNOWN = "nothing is known"
    VIEW = "it holds the same numbers, all of them"
    PART = "it holds some of the same numbers"
    LINEAR = "as its first operand"
    PADDED = "as its first operand, where zeros are put round it"
    SUM = "as its operands, where all of them are"
    ZEROS = "zeros stay what they are"
    PRODUCT = "as one of its factors"
    QUOTIENT = "as its dividend"
    BATCHED = "as one of two batches of matrices"
    NORM = "as its affine parameters"


class Positions(Enum):
    """What becomes of operands whose numbers are positions along an axis, such as those that top-k gives."""

    READ = "the numbers are computed with, which ties that axis to its order"
    KEPT = "the result holds the same numbers as the first operand"
    RULED = "the rule says what"


@dataclass(frozen=True)
class ProductCost:
    """What a product costs: one multiply-add for every place of the ``axes``, each a tensor and its axis.

    A product one of whose ``factors`` is a parameter counts as a layer's.
    """

    axes: tuple[tuple[Ref, int], ...]
    factors: tuple[Ref, ...]


@dataclass(frozen=True)
class Operator:
    """A family of operators of which the same is known.

    Attributes:
        names: packet names, without overload and without the underscore of the in-place form: ``aten.add`` also speaks
            of ``torch.ops.aten.add_.Tensor``, ``mylib.swish`` of ``torch.ops.mylib.swish``.
        couple: the rule: what the operator's result has to do with its operands, told to a ``Labelling``. Without one,
            torch's own tag decides: pointwise operators are coupled as such, any other freezes what it touches.
        product: what it costs, for a product; None for what costs no multiply-adds.
        scales: what scaling does to it, for constants that depend on a width and are folded into weights.
        rearranges: whether it only arranges the same numbers anew; as many of these as there are may come and go with
            a width, since whether one is needed depends on strides.
        normalises: whether it is a batch norm, which holds the mean of what it reads.
        takes_time: False for what a kernel never runs for.
        integers: positions of operands of integers that follow a width, such as a zero point a channel; other
            integers are positions, ids and counts, which no width changes.
        positions: what becomes of numbers that are positions along an axis.
        shapes: for frequent operators, the result on meta tensors by overload, quicker than torch's: see
            ``prunekit/operators/shapes.py``.
    """

    names: tuple[str, ...]
    couple: Rule | None = None
    product: Callable[[Op], ProductCost] | None = None
    scales: Scales = Scales.UNKNOWN
    rearranges: bool = False
    normalises: bool = False
    takes_time: bool = True
    integers: tuple[int, ...] = ()
    positions: Positions = Positions.READ
    shapes: Mapping[str, ShapeRule] = field(default_factory=dict)
