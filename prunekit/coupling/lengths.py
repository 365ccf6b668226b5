"""How long every axis is when groups keep some of their units, kept up to date as they change."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from prunekit.coupling.axis_rows import Rows
from prunekit.labels.vectors import Axis


class Lengths:
    """The lengths of all axes of a structure. Groups that were not named are whole.

    A change costs what the axes of the changed groups cost, however large the rest of the model is.
    """

    def __init__(self, rows: Rows, numbers: Mapping[str, int], kept: Mapping[str, Tensor | int]) -> None:
        self.rows, self._numbers = rows, numbers
        self._of_row = [row.size for row in rows.all]
        self._counts = list(rows.sizes)
        self._units = np.ones(rows.starts[-1] + 1, dtype=bool)
        self._masks: dict[int, NDArray[np.bool_]] = {}
        self.keep(kept)

    def keep(self, kept: Mapping[str, Tensor | int]) -> list[int]:
        """From now on these groups keep these units, or the first so many; the rows whose lengths this changes."""
        touched: dict[int, None] = {}
        for name, units in kept.items():
            number = self._numbers.get(name)
            if number is None:
                continue
            start, end = self.rows.starts[number], self.rows.starts[number + 1]
            self._units[start:end] = False
            self._units[start:end][slice(units) if isinstance(units, int) else units.cpu().numpy()] = True
            self._counts[number] = int(np.count_nonzero(self._units[start:end]))
            touched |= dict.fromkeys(self.rows.of_group.get(number, ()))
        changed = []
        for number in touched:
            self._masks.pop(number, None)
            now = self._length(number)
            if now != self._of_row[number]:
                changed.append(number)
                self._of_row[number] = now
        return changed

    def _length(self, number: int) -> int:
        row = self.rows.all[number]
        if not row.even:
            return int(np.count_nonzero(self.rows.alive(row, self._units)))
        total = 0
        for times, held in row.parts:
            for group in held:
                times *= self._counts[group]
            total += times
        return total

    def of_row(self, number: int) -> int:
        """The length of the axes of one row."""
        return self._of_row[number]

    def of(self, axis: Axis, size: int) -> int:
        """The length of an axis of ``size`` coordinates."""
        return size if axis is None else self._of_row[self.rows.number(axis)]

    def survivors(self, axis: Axis) -> NDArray[np.bool_] | None:
        """Mask over the coordinates of one axis, None where the axis is fixed."""
        if axis is None:
            return None
        number = self.rows.number(axis)
        if number not in self._masks:
            self._masks[number] = self.rows.alive(self.rows.all[number], self._units)
        return self._masks[number]
