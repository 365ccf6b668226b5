"""The table of operators: every entry by packet name. A wider table is a new one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from prunekit.errors import RegistryError
from prunekit.graph.nodes import Op, packet
from prunekit.operators import (
    complex_numbers,
    convolution,
    factories,
    indexing,
    joining,
    matmul,
    normalisation,
    opaque,
    pointwise,
    pooling,
    quantisation,
    reduction,
    regions,
    routing,
    sequences,
    slicing,
    spectral,
    views,
    writing,
)
from prunekit.operators.operator import Operator, Rule, ShapeRule

FAMILIES = (
    complex_numbers,
    convolution,
    factories,
    indexing,
    joining,
    matmul,
    normalisation,
    opaque,
    pointwise,
    pooling,
    quantisation,
    reduction,
    regions,
    routing,
    sequences,
    slicing,
    spectral,
    views,
    writing,
)


class Table(Mapping[str, Operator]):
    """Entries by packet name; ``brought`` are those of plug-ins and scripts.

    Raises RegistryError where two entries speak of one name.
    """

    def __init__(self, operators: Iterable[Operator], brought: Iterable[Operator] = ()) -> None:
        self.brought = tuple(brought)
        self._by_name: dict[str, Operator] = {}
        for operator in (*operators, *self.brought):
            for name in operator.names:
                if name in self._by_name:
                    raise RegistryError(
                        f"two entries speak of the operator {name}", hint="bring rules for operators of your own only"
                    )
                self._by_name[name] = operator
        self.shapes: Mapping[Any, ShapeRule] = dict(_shapes(self._by_name.values()))

    def __getitem__(self, name: str) -> Operator:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def of(self, op: Op) -> Operator:
        """What is known of an operator of a trace; of one that is not in the table, its name."""
        name = packet(op)
        return self._by_name.get(name) or Operator((name,))

    def rule(self, op: Op) -> Rule | None:
        """How ``op`` couples; None where nobody knows."""
        found = self._by_name.get(packet(op))
        if found is not None and found.couple is not None:
            return found.couple
        return pointwise.couple_pointwise if torch.Tag.pointwise in op.func.tags else None

    def with_(self, operators: Iterable[Operator]) -> Table:
        """This table and more entries; itself where there are none."""
        more = [operator for operator in operators if operator not in self.brought]
        if not more:
            return self
        own = {id(operator): operator for operator in self._by_name.values() if operator not in self.brought}
        return Table(own.values(), (*self.brought, *more))


def _shapes(operators: Iterable[Operator]) -> Iterator[tuple[Any, ShapeRule]]:
    for operator in operators:
        for name, rule in operator.shapes.items():
            library, family, overload = name.split(".")
            found = getattr(getattr(torch.ops, library), family, None)
            if found is not None:  # some are of a later torch
                yield getattr(found, overload), rule


TABLE = Table(operator for family in FAMILIES for operator in family.OPERATORS)
