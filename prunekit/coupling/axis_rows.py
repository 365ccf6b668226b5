"""Axes whose coordinates live and die alike, and how many coordinates of each a unit of a group owns."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from prunekit.coupling.assembly import Assembly
from prunekit.coupling.fates import Fates
from prunekit.labels.vectors import Axis, Vector


@dataclass(frozen=True, eq=False)
class Row:
    """One kind of axis.

    Attributes:
        size: its length while everything is kept.
        labels: (size,) of one of these axes.
        parts: sets of groups with the coordinates that one unit of each owns together: its length is the sum over
            them of that many times the units that are kept. A part of no group never shrinks.
        groups: the groups that own any of it.
        even: whether every combination of units owns equally many; else coordinates have to be looked at one by one.
    """

    size: int
    labels: Vector
    parts: tuple[tuple[int, tuple[int, ...]], ...]
    groups: tuple[int, ...]
    even: bool


@dataclass(frozen=True, eq=False)
class Rows:
    """The kinds of axes of a structure. Axes are told apart by the fates of their coordinates.

    Attributes:
        sizes: units of every group.
        of_group: for each group the numbers of the rows that it owns a part of.
        place: (classes + 1,) where a class's unit is among the units of all groups, the last of which stands for all
            that no group owns.
        starts: where the units of each group begin there.
    """

    fates: Fates
    sizes: tuple[int, ...]
    place: NDArray[np.int64]
    starts: tuple[int, ...]
    all: list[Row] = field(default_factory=list)
    of_group: dict[int, list[int]] = field(default_factory=dict)
    _of_axis: dict[int, tuple[Axis, int]] = field(default_factory=dict)  # by id, and the axis so that no other gets it
    _of_classes: dict[bytes, int] = field(default_factory=dict)

    @classmethod
    def of(cls, axes: Iterable[Sequence[Axis]], fates: Fates, assembly: Assembly) -> Rows:
        """The rows of all ``axes`` of all tensors."""
        sizes = tuple(group.size for group in assembly.groups)
        starts = np.cumsum([0, *sizes])
        owned = assembly.group_of >= 0
        place = np.append(np.where(owned, starts[assembly.group_of] + assembly.unit_of, starts[-1]), starts[-1])
        found = cls(fates, sizes, place, tuple(starts.tolist()))
        for several in axes:
            for axis in several:
                if axis is not None:
                    found.number(axis)
        return found

    def number(self, axis: Vector) -> int:
        """Which row an axis is."""
        known = self._of_axis.get(id(axis))
        if known is not None:
            return known[1]
        classes = self.fates.fate[axis]
        key = hashlib.blake2b(classes.tobytes(), digest_size=16).digest()
        number = self._of_classes.get(key)
        if number is None:
            number = self._of_classes[key] = len(self.all)
            self.all.append(self._row(axis, classes))
            for group in self.all[number].groups:
                self.of_group.setdefault(group, []).append(number)
        self._of_axis[id(axis)] = axis, number
        return number

    def alive(self, row: Row, units: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(size,) which coordinates live when ``units``, all groups' one after the other and a True, are kept."""
        owners = self.fates.owners[self.fates.fate[row.labels]]
        alive = units[self.place[owners[:, 0]]]
        for k in range(1, owners.shape[1]):
            alive &= units[self.place[owners[:, k]]]
        return alive

    def _row(self, labels: Vector, classes: Vector) -> Row:
        places = self.place[self.fates.owners[classes]]
        places.sort(axis=1)
        groups = np.searchsorted(np.asarray(self.starts[1:]), places, side="right")  # no group: the number after all
        parts, even = [], True
        for held_by, here in _distinct_lines(groups, len(self.sizes) + 1):
            held = tuple(g for g in held_by if g < len(self.sizes))
            count = places.shape[0] if here is None else int(here.sum())
            if not held:
                parts.append((count, held))
                continue
            own = places if here is None else places[here]
            each = math.prod(self.sizes[g] for g in held)
            even = even and len(set(held)) == len(held) and self._is_even(own, held)
            parts.append((count // each, held))
        touched = sorted({g for _, held in parts for g in held})
        return Row(labels.size, labels, tuple(parts), tuple(touched), even)

    def _is_even(self, places: Vector, held: tuple[int, ...]) -> bool:
        """Whether each combination of units of the groups ``held`` owns equally many of the ``places``."""
        combinations = math.prod(self.sizes[group] for group in held)
        if combinations > places.shape[0]:
            return False
        combined = np.zeros(places.shape[0], dtype=np.int64)
        for k, group in enumerate(held):
            combined = combined * self.sizes[group] + (places[:, k] - self.starts[group])
        times = np.bincount(combined, minlength=combinations)
        return bool((times == times[0]).all())


def _distinct_lines(groups: Vector, base: int) -> list[tuple[tuple[int, ...], NDArray[np.bool_] | None]]:
    """The distinct lines of ``groups`` with where they stand; None where all are the same."""
    if not groups.size:
        return []
    if (groups == groups[0]).all():
        return [(tuple(groups[0].tolist()), None)]
    if base ** groups.shape[1] > 2**62:  # more groups than fit in one number
        distinct, inverse = np.unique(groups, axis=0, return_inverse=True)
        return [(tuple(line), inverse.reshape(-1) == k) for k, line in enumerate(distinct.tolist())]
    code = groups @ np.array([base**k for k in range(groups.shape[1])][::-1], dtype=np.int64)
    distinct, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    return [(tuple(groups[at].tolist()), inverse == k) for k, at in enumerate(first.tolist())]
