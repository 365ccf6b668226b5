"""Cost as a function of how many units each group keeps: what a search for a budget evaluates thousands of times."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from prunekit.coupling.cost import COUNTED, Cost, CostTerm
from prunekit.coupling.structure import Structure


class CountedCost:
    """Cost of a structure at counts that change a few at a time; nothing is rebuilt.

    A change costs what the terms cost that read the changed groups, however large the rest of the model is. Where the
    units of a group own different numbers of coordinates of an axis (``exact`` is False) it is the cost of the first
    units of each group. ``terms`` are what is counted: all that the structure has, or some of it.
    """

    def __init__(self, structure: Structure, terms: Iterable[CostTerm] | None = None) -> None:
        self.exact = True
        self._lengths = structure.lengths({})
        self._sums = dict.fromkeys(COUNTED, 0)
        self._readers: dict[int, list[int]] = {}
        rows = structure.rows
        merged: dict[tuple[tuple[str, ...], tuple[int, ...]], int] = {}
        for term in structure.terms if terms is None else terms:
            constant, moving = term.factor, []
            for ref, k in term.axes:
                axes = structure.coupler.axes.get(ref.id)
                axis = axes[k] if axes else None
                number = None if axis is None else rows.number(axis)
                if number is None or not rows.all[number].groups:
                    constant *= ref.shape[k]
                else:
                    moving.append(number)
                    self.exact = self.exact and rows.all[number].even
            key = (term.counts, tuple(sorted(moving)))
            merged[key] = merged.get(key, 0) + constant
        self._terms = [(constant, read, fields) for (fields, read), constant in merged.items()]
        self._values = [0] * len(self._terms)
        for number, (_, read, _) in enumerate(self._terms):
            self._renew(number)
            for row in dict.fromkeys(read):
                self._readers.setdefault(row, []).append(number)

    def _renew(self, number: int) -> None:
        constant, moving, fields = self._terms[number]
        value = constant * math.prod(map(self._lengths.of_row, moving))
        for name in fields:
            self._sums[name] += value - self._values[number]
        self._values[number] = value

    def __call__(self, counts: Mapping[str, int]) -> Cost:
        """Cost when from now on these groups keep so many units, and the others what they kept: all, at first."""
        changed = self._lengths.keep(counts)
        for number in {number for row in changed for number in self._readers.get(row, ())}:
            self._renew(number)
        return Cost(**self._sums)
