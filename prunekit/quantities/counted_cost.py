"""Cost as a function of how many units each group keeps: what a search for a budget evaluates thousands of times."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from prunekit.coupling.cost import Cost
from prunekit.coupling.structure import Structure
from prunekit.labels.vectors import Axis

FIELDS = ("params", "macs", "layer_macs", "memory")


class CountedCost:
    """Cost of a structure from counts alone; nothing is rebuilt, and one evaluation takes well under a millisecond.

    The length of an axis is a sum of terms: coordinates that no group owns, those that one group owns (each unit
    equally many), and those that two own (heads, and positions within a head). ``exact`` is False where units of a
    group own different numbers of coordinates of an axis: there a count is the mean over all units, an estimate.
    """

    def __init__(self, structure: Structure) -> None:
        self.names = [group.name for group in structure.groups]
        self.sizes = np.array([group.size for group in structure.groups], dtype=np.float64)
        self.exact = True
        self._structure = structure
        self._rows: list[dict[tuple[int, ...], float]] = []
        self._row_of: dict[bytes, int] = {}
        factors: list[list[int]] = []
        constants: list[int] = []
        of_field: dict[str, list[int]] = {name: [] for name in FIELDS}
        merged: dict[tuple[tuple[str, ...], tuple[int, ...]], int] = {}
        seen: dict[int, int] = {}
        for term in structure.terms:
            constant, moving = term.factor, []
            for ref, k in term.axes:
                axes = structure.coupler.axes.get(ref.id)
                axis = axes[k] if axes else None
                if axis is None:
                    constant *= ref.shape[k]
                    continue
                if id(axis) not in seen:
                    seen[id(axis)] = self._row(axis)
                row = seen[id(axis)]
                if set(self._rows[row]) == {()}:
                    constant *= ref.shape[k]
                else:
                    moving.append(row)
            key = (term.counts, tuple(sorted(moving)))
            merged[key] = merged.get(key, 0) + constant
        for (fields, moving_rows), constant in merged.items():
            for name in fields:
                of_field[name].append(len(factors))
            factors.append(list(moving_rows))
            constants.append(constant)
        width = max((len(f) for f in factors), default=0)
        last = len(self._rows)  # a row that is always 1
        self._factors = np.array([f + [last] * (width - len(f)) for f in factors], dtype=np.int64).reshape(-1, width)
        self._constants = np.array(constants, dtype=np.float64)
        self._fields = {name: np.array(rows, dtype=np.int64) for name, rows in of_field.items()}
        self._compile()

    def _row(self, axis: Axis) -> int:
        assert axis is not None
        structure = self._structure
        classes = structure.fates.fate[axis]
        key = classes.tobytes()
        if key not in self._row_of:
            self._row_of[key] = len(self._rows)
            self._rows.append(self._polynomial(classes))
        return self._row_of[key]

    def _polynomial(self, classes: NDArray[np.int64]) -> dict[tuple[int, ...], float]:
        """Owning groups -> coordinates that one combination of their units owns."""
        structure = self._structure
        owners = structure.fates.owners[classes]
        group_of = np.append(structure.assembly.group_of, -1)
        unit_of = np.append(structure.assembly.unit_of, -1)
        groups, units = group_of[owners], unit_of[owners]
        order = np.argsort(-groups, axis=1, kind="stable")
        groups = np.take_along_axis(groups, order, axis=1)
        units = np.take_along_axis(units, order, axis=1)
        found: dict[tuple[int, ...], float] = {}
        for row in np.unique(groups, axis=0):
            here = (groups == row).all(axis=1)
            held = tuple(int(g) for g in row if g >= 0)
            if not held:
                found[()] = float(here.sum())
                continue
            own = units[here][:, : len(held)]
            _, times = np.unique(own, axis=0, return_counts=True)
            combinations = int(np.prod([self.sizes[g] for g in held]))
            if len(times) != combinations or len(set(times.tolist())) != 1 or any(a == b for a, b in pairwise(held)):
                self.exact = False
            found[held] = float(here.sum()) / combinations
        return found or {(): 0.0}

    def _compile(self) -> None:
        entries: list[tuple[int, float, tuple[int, ...]]] = [
            (number, coefficient, held) for number, row in enumerate(self._rows) for held, coefficient in row.items()
        ]
        depth = max((len(held) for _, _, held in entries), default=0)
        none = len(self.names)  # a group that always counts 1
        self._entry_row = np.array([e[0] for e in entries], dtype=np.int64)
        self._entry_factor = np.array([e[1] for e in entries], dtype=np.float64)
        self._entry_groups = np.array([[*e[2], *[none] * (depth - len(e[2]))] for e in entries], dtype=np.int64)
        self._entry_groups = self._entry_groups.reshape(len(entries), depth)

    def __call__(self, counts: Mapping[str, int]) -> Cost:
        """Cost when each named group keeps so many units; the others stay whole."""
        values = np.append(self.sizes, 1.0)
        for number, name in enumerate(self.names):
            if name in counts:
                values[number] = counts[name]
        parts = self._entry_factor * values[self._entry_groups].prod(axis=1)
        lengths = np.append(np.bincount(self._entry_row, weights=parts, minlength=len(self._rows)), 1.0)
        products = self._constants * lengths[self._factors].prod(axis=1)
        return Cost(**{name: round(float(products[rows].sum())) for name, rows in self._fields.items()})
