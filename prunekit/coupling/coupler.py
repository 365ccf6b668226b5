"""Walks a trace once and hands every operator to its rule, which moves and unites labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from prunekit.graph.nodes import Call, Op, Ref, Trace
from prunekit.graph.provenance import Expression, expression_of, leaves
from prunekit.labels.vectors import Axis, Labels

Rule = Callable[["Coupler", Op], None]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers a rule for ATen operators by packet name, e.g. ``aten.mm`` or ``aten.slice``."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


def packet(op: Op) -> str:
    """``aten.add`` for ``aten.add.Tensor``; the in-place variant ``aten.add_`` reads as ``aten.add``."""
    name = str(op.func.overloadpacket)
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


@dataclass(frozen=True, eq=False)
class Equation:
    """A Python size argument: after pruning, ``expression`` must equal the number of survivors on ``axis``."""

    expression: Expression
    axis: Axis
    size: int
    where: str


@dataclass
class Coupler:
    """Labels of every tensor of a trace, and the equations between size arguments and what survives."""

    trace: Trace
    labels: Labels = field(default_factory=Labels)
    axes: dict[int, list[Axis]] = field(default_factory=dict)
    equations: list[Equation] = field(default_factory=list)
    dependent: set[int] = field(default_factory=set)  # ids of tensors that depend on the model's input
    weights: dict[int, str] = field(default_factory=dict)  # ids of parameters and of plain views of them
    origin: dict[int, int] = field(default_factory=dict)  # view -> the tensor it shows
    added: set[int] = field(default_factory=set)  # ids of tensors that an addition produced
    unknown: dict[str, str] = field(default_factory=dict)  # operator without a rule -> where it was met
    where: str = ""

    def run(self) -> None:
        for ref in self.trace.state.values():
            labelled = ref.dtype.is_floating_point or ref.dtype.is_complex or ref.dtype is torch.bool
            self.axes[ref.id] = [self.labels.fresh(s) if labelled and s > 1 else None for s in ref.shape]
            if ref.kind == "parameter":
                self.weights[ref.id] = ref.name
        for op in self.trace.ops:
            self._apply(op)
        for call in self.trace.calls:
            self.where = f"{call.module} {call.source}".strip()
            shape_equations(self, call)
        self.where = ""
        for left, right in self.trace.agreed:
            self.agree(left, right)
            self.agree(right, left)
        for ref, place in zip(self.trace.outputs, self.trace.places, strict=True):
            for axis in self.of(ref):
                self.labels.freeze(axis, "it is an output of the model", place)

    def _apply(self, op: Op) -> None:
        self.where = op.where
        inputs = op.inputs
        if any(r.kind == "input" or r.id in self.dependent for r in inputs):
            self.dependent.update(r.id for r in op.outputs)
        name = packet(op)
        found = RULES.get(name)
        if found is None and torch.Tag.pointwise in op.func.tags:
            found = RULES["pointwise"]
        if found is None:
            self.refuse(op, name)
        else:
            found(self, op)

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


_SHAPED_FIRST = {"view": 1, "reshape": 1, "expand": 1, "new_zeros": 1, "new_ones": 1, "new_empty": 1, "new_full": 1}
_FACTORIES = {"zeros": 0, "ones": 0, "empty": 0, "full": 0, "rand": 0, "randn": 0}


def shape_equations(c: Coupler, call: Call) -> None:
    """Equations of a call that names the sizes of its result."""
    if not call.outputs:
        return
    name, out = call.name, call.outputs[0]
    if name in _SHAPED_FIRST or name in _FACTORIES:
        start = _SHAPED_FIRST.get(name, 0)
        sizes = call.args[start:] or tuple(v for k, v in call.kwargs.items() if k in ("size", "shape"))
        if sizes and isinstance(sizes[0], (tuple, list)):
            sizes = tuple(sizes[0])
        if len(sizes) != len(out.shape):
            return
        for value, axis, size in zip(sizes, c.of(out), out.shape, strict=True):
            if isinstance(value, int) and value != -1 and not (name == "expand" and axis is None):
                c.equate(value, axis, size)
    elif name == "unflatten":
        dim, sizes = _argument(call, 1, "dim"), _argument(call, 2, "sizes")
        if isinstance(dim, int) and isinstance(sizes, (tuple, list)):
            dim = dim % (len(out.shape) - len(sizes) + 1)
            for k, value in enumerate(sizes):
                if value != -1:
                    c.equate(value, c.of(out)[dim + k], out.shape[dim + k])
    elif name == "rms_norm":  # split into its parts on meta, where no operator shows the normalised shape
        sizes = _argument(call, 1, "normalized_shape")
        if isinstance(sizes, (tuple, list)):
            rank = len(out.shape) - len(sizes)
            for value, axis, size in zip(sizes, c.of(out)[rank:], out.shape[rank:], strict=True):
                c.equate(value, axis, size)


def _argument(call: Call, position: int, name: str) -> Any:
    return call.args[position] if len(call.args) > position else call.kwargs.get(name)
