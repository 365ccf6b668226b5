"""Integers that remember where they came from, so that attributes can be repaired after pruning.

An expression is a nested tuple:
    ("attribute", module path, name, index or None)
    ("size", tensor id, axis)
    ("constant", value)
    (operator, left, right)        with operator one of + - * // %
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator
from typing import Any

Expression = tuple[Any, ...]

_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
}


# Pairs of expressions that the model's code compared and found equal, while a trace listens: an assertion such as
# ``embed_dim == self.embed_dim`` must hold again after pruning.
_AGREED: list[tuple[Expression, Expression]] | None = None


@contextlib.contextmanager
def listening() -> Iterator[list[tuple[Expression, Expression]]]:
    """Collects the pairs of traced ints that are compared and equal inside the context."""
    global _AGREED
    before, _AGREED = _AGREED, []
    try:
        yield _AGREED
    finally:
        _AGREED = before


class TracedInt(int):
    """An int with an expression. Arithmetic with other ints stays traced; everything else is plain int."""

    expression: Expression

    def __new__(cls, value: int, expression: Expression) -> TracedInt:
        self = super().__new__(cls, value)
        self.expression = expression
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> TracedInt:
        return self

    def __eq__(self, other: object) -> bool:
        same = int.__eq__(self, other)  # NotImplemented for a float or a tensor, which then compares
        if same is True and _AGREED is not None and isinstance(other, TracedInt):
            _AGREED.append((self.expression, other.expression))
        return same

    def __ne__(self, other: object) -> bool:
        same = self.__eq__(other)
        return same if same is NotImplemented else not same

    __hash__ = int.__hash__

    def __neg__(self) -> TracedInt:
        return TracedInt(-int(self), ("-", ("constant", 0), self.expression))

    def __pos__(self) -> TracedInt:
        return self


def _binary(symbol: str, reflected: bool) -> Callable[[TracedInt, Any], Any]:
    compute = _OPERATORS[symbol]

    def method(self: TracedInt, other: Any) -> Any:
        if type(other) is bool or not isinstance(other, int):
            return NotImplemented
        left, right = (other, self) if reflected else (self, other)
        value = compute(int(left), int(right))
        return TracedInt(value, (symbol, expression_of(left), expression_of(right)))

    return method


for _symbol, _name in (("+", "add"), ("-", "sub"), ("*", "mul"), ("//", "floordiv"), ("%", "mod")):
    setattr(TracedInt, f"__{_name}__", _binary(_symbol, False))
    setattr(TracedInt, f"__r{_name}__", _binary(_symbol, True))


def expression_of(value: int) -> Expression:
    """The expression of any int: its own if it is traced, else a constant."""
    return value.expression if isinstance(value, TracedInt) else ("constant", int(value))


def value_of(expression: Expression, leaf: Callable[[Expression], int]) -> int:
    """Value of ``expression`` where ``leaf`` gives the value of attributes and sizes.

    Raises ZeroDivisionError where a divisor vanishes.
    """
    kind = expression[0]
    if kind == "constant":
        return int(expression[1])
    if kind in _OPERATORS:
        return _OPERATORS[kind](value_of(expression[1], leaf), value_of(expression[2], leaf))
    return leaf(expression)


def leaves(expression: Expression) -> Iterator[Expression]:
    """Attributes and sizes that an expression reads."""
    if expression[0] in _OPERATORS:
        yield from leaves(expression[1])
        yield from leaves(expression[2])
    elif expression[0] != "constant":
        yield expression


def is_leaf(expression: Expression) -> bool:
    """Whether an expression computes nothing."""
    return expression[0] not in _OPERATORS


def render(expression: Expression) -> str:
    """An expression as people write it, for messages."""
    kind = expression[0]
    if kind == "constant":
        return str(expression[1])
    if kind == "attribute":
        _, module, name, index = expression
        return f"{module}.{name}" + ("" if index is None else f"[{index}]")
    if kind == "size":
        return f"size(axis {expression[2]})"
    return f"({render(expression[1])} {kind} {render(expression[2])})"
