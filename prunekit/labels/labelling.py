"""What rules act on: the labels of every tensor of a trace, and the equations between sizes and what survives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prunekit.graph.nodes import Op, Ref
from prunekit.graph.provenance import Expression, expression_of, leaves
from prunekit.labels.vectors import Axis, Labels, Vector, frozen_copy


@dataclass(frozen=True, eq=False)
class Equation:
    """A Python size argument: after pruning, ``expression`` must equal the number of survivors on ``axis``."""

    expression: Expression
    axis: Axis
    size: int
    where: str


@dataclass(frozen=True, eq=False)
class Numbered:
    """What the numbers in a tensor of integers say of ``axis``.

    ``kind`` is ``positions`` where they are positions along it, as top-k gives them, ``counts`` where there is one a
    position that says how often it occurs among such numbers, ``offsets`` where counts were added up.
    """

    axis: Vector
    kind: str = "positions"


@dataclass(frozen=True, eq=False)
class Pick:
    """So many of the positions along ``axis`` are chosen by their values: no fewer may be left."""

    axis: Vector
    count: int
    where: str
    positions: int = -1  # id of the tensor that says which


@dataclass
class Labelling:
    """Labels by tensor, as far as the trace was walked. A rule reads its operands' and gives its results theirs."""

    labels: Labels = field(default_factory=Labels)
    axes: dict[int, list[Axis]] = field(default_factory=dict)
    equations: list[Equation] = field(default_factory=list)
    dependent: set[int] = field(default_factory=set)  # ids of tensors that depend on the model's input
    weights: dict[int, str] = field(default_factory=dict)  # ids of parameters and of plain views of them
    origin: dict[int, int] = field(default_factory=dict)  # view -> the tensor it shows
    added: set[int] = field(default_factory=set)  # ids of tensors that an addition produced
    numbered: dict[int, Numbered] = field(default_factory=dict)  # ids of tensors whose numbers name positions
    sized: dict[Expression, Axis] = field(default_factory=dict)  # what forward computes as a size -> the axis it sizes
    ranges: dict[int, Any] = field(default_factory=dict)  # ids of arange(n) -> the Python argument n
    stacks: set[str] = field(default_factory=set)  # names of weights that are picked along an axis
    choices: list[Pick] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)  # operator without a rule -> where it was met
    where: str = ""

    def refuse(self, op: Op, name: str) -> None:
        """An operator without a rule: nothing that it touches may shrink, and it is reported."""
        inputs = op.inputs
        touched = False
        for ref in inputs:
            for axis in self.of(ref):
                touched = touched or axis is not None
                self.labels.freeze(axis, f"operator {name} has no coupling rule", self.where)
        if touched:
            self.unknown.setdefault(name, self.where)

    def of(self, ref: Ref) -> list[Axis]:
        """Label vectors of a tensor, one entry an axis, None where the axis is fixed."""
        return self.axes.get(ref.id) or [None] * len(ref.shape)

    def set(self, ref: Ref, axes: Sequence[Axis]) -> None:
        """Gives an operator's result its labels; a tensor that already has some (written in place) is united."""
        fitted = [None if s == 1 else a for s, a in zip(ref.shape, axes, strict=True)]
        if ref.id in self.axes:
            for old, new in zip(self.axes[ref.id], fitted, strict=True):
                self.unite(old, new)
            return
        self.axes[ref.id] = fitted

    def unite(self, a: Axis, b: Axis, reason: str = "") -> None:
        self.labels.unite(a, b, self.where, reason)

    def freeze(self, axis: Axis, reason: str) -> None:
        self.labels.freeze(axis, reason, self.where)

    def flag(self, axis: Axis, use: str) -> None:
        """Notes how an axis is used: what roles are told by, or ``"normalised"`` where a reduction reads it."""
        self.labels.flag(axis, use)

    def number(self, ref: Ref, axis: Axis, kind: str = "positions") -> None:
        """Notes that the numbers in ``ref`` speak of positions along ``axis``; a fixed axis needs no note."""
        if axis is not None:
            self.numbered[ref.id] = Numbered(axis, kind)

    def choose(self, axis: Axis, count: int, positions: int = -1) -> None:
        """Notes that ``count`` positions along ``axis`` are chosen by their values; ``positions`` tells which."""
        if axis is not None:
            self.choices.append(Pick(axis, count, self.where, positions))
            self.flag(axis, "chosen")

    def follow(self, axis: Axis, numbered: Numbered, reason: str) -> None:
        """``axis`` is read or written at numbered positions: it has these positions, and lives and dies with them.

        Positions that only the longer of the two has, as a place for what belongs nowhere, stay.
        """
        if axis is None:
            self.freeze(numbered.axis, reason)
            return
        size = min(axis.size, numbered.axis.size)
        both = [each if each.size == size else frozen_copy(each[:size]) for each in (axis, numbered.axis)]
        self.unite(both[0], both[1])
        for each in (axis, numbered.axis):
            self.freeze(frozen_copy(each[size:]), reason)

    def show(self, view: Ref, base: Ref) -> None:
        """Notes that ``view`` holds the same numbers as ``base`` in another arrangement."""
        self.origin[view.id] = base.id
        if base.id in self.weights:
            self.weights[view.id] = self.weights[base.id]

    def agree(self, size: Expression, other: Expression) -> None:
        """The model's code found a size equal to another expression; that must stay true."""
        if size[0] != "size" or other[0] == "size":
            return
        axes = self.axes.get(size[1])
        axis = axes[size[2]] if axes else None
        if axis is not None:
            self.equations.append(Equation(other, axis, axis.size, self.where))

    def equate(self, value: Any, axis: Axis, size: int) -> None:
        """A size argument of the model's Python code must follow the number of survivors on ``axis``."""
        if not isinstance(value, int) or isinstance(value, bool):
            return
        expression = expression_of(value)
        moving = False
        for leaf in leaves(expression):
            if leaf[0] == "attribute":
                moving = True
            else:
                source = self.axes.get(leaf[1])
                moving = moving or (source is not None and source[leaf[2]] is not None)
        if not moving:
            self.freeze(axis, "its size is written as a constant in forward")
            return
        if expression[0] == "size" and axis is not None and self.axes[expression[1]][expression[2]] is axis:
            return  # the argument is the size of this very axis, whatever it becomes
        self.equations.append(Equation(expression, axis, size, self.where))
