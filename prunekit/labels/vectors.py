"""Labels: which coordinates of which axes live and die together.

Every axis of every tensor is either *fixed* (None: it can never shrink) or carries a label vector, int64 of the
axis length. Equal labels share one fate. Label 0 is fixed. Two axes that an operator reads in lockstep have their
labels united. An axis that is split by a reshape, say 768 -> (12, 64), becomes a *grid*: the coordinate (i, j) is
alive if row i and column j are, so that what is left stays rectangular; rows (heads) and columns (positions
within every head) can be removed, single cells cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.int64]
Axis = Vector | None
FIXED = 0


@dataclass(frozen=True, eq=False)
class Grid:
    """``cells`` has shape (len(axes[0]), len(axes[1]), ...); a cell is alive iff its label on every axis is."""

    cells: Vector
    axes: tuple[Vector, ...]


@dataclass
class Labels:
    """Collects labels, equalities, grids, freezes and flags while the trace is walked."""

    count: int = 1
    edges: list[tuple[Vector, Vector]] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    freezes: list[tuple[Vector, str, str]] = field(default_factory=list)  # labels, reason, where
    flags: list[tuple[Vector, str]] = field(default_factory=list)
    roots: dict[int, int] = field(default_factory=dict)  # tensor -> the one that it is a pointwise function of
    _seen: set[tuple[int, int]] = field(default_factory=set)
    _keep: list[Vector] = field(default_factory=list)
    _split: dict[tuple[bytes, tuple[int, ...]], tuple[Vector, ...]] = field(default_factory=dict)
    _merged: dict[tuple[bytes, ...], Vector] = field(default_factory=dict)

    def fresh(self, size: int) -> Vector:
        """New labels that nothing shares yet."""
        vector = np.arange(self.count, self.count + size, dtype=np.int64)
        vector.setflags(write=False)
        self.count += size
        return vector

    def unite(self, a: Axis, b: Axis, where: str, reason: str = "") -> None:
        """Coordinates i of ``a`` and of ``b`` share one fate; against a fixed axis everything freezes."""
        if a is b:
            return
        if a is None or b is None:
            self.freeze(a if b is None else b, reason or "it meets an axis of constant size", where)
            return
        key = (id(a), id(b))
        if key in self._seen:
            return
        self._seen.add(key)
        self._keep += [a, b]
        different = a != b
        left, right = a[different], b[different]
        if left.size == 0:
            return
        fixed = (left == FIXED) | (right == FIXED)
        if fixed.any():
            both = np.concatenate([left[fixed], right[fixed]])
            self.freeze(both[both != FIXED], reason or "it is joined with an axis of constant size", where)
            left, right = left[~fixed], right[~fixed]
        self.edges.append((left, right))

    def freeze(self, axis: Axis, reason: str, where: str) -> None:
        """Nothing on ``axis`` may be removed."""
        if axis is not None and axis.size:
            self.freezes.append((axis, reason, where))

    def flag(self, axis: Axis, name: str) -> None:
        """Remembers how an axis is used, for roles and for what crosses a normalisation."""
        if axis is not None:
            self.flags.append((axis, name))

    def split(self, axis: Axis, sizes: Sequence[int]) -> list[Axis]:
        """Labels of the axes that ``axis`` becomes when it is reshaped to ``sizes`` (their product is its length)."""
        if axis is None:
            return [None] * len(sizes)
        cells = axis.reshape(tuple(sizes))
        moving = [i for i, s in enumerate(sizes) if s > 1 and bool((cells != np.take(cells, [0], axis=i)).any())]
        result: list[Axis] = [None] * len(sizes)
        if not moving:
            return self._constant(axis, sizes)
        corner = cells[tuple(slice(None) if i in moving else 0 for i in range(len(sizes)))]
        if len(moving) == 1:
            result[moving[0]] = frozen_copy(corner)
            return result
        key = (corner.tobytes(), corner.shape)
        if key not in self._split:
            parts = tuple(self.fresh(n) for n in corner.shape)
            self.grids.append(Grid(frozen_copy(corner), parts))
            self._split[key] = parts
            self._merged.setdefault(tuple(p.tobytes() for p in parts), frozen_copy(corner.reshape(-1)))
        for i, part in zip(moving, self._split[key], strict=True):
            result[i] = part
        return result

    def _constant(self, axis: Vector, sizes: Sequence[int]) -> list[Axis]:
        """All coordinates share one label: they can only vanish together, so the first non-trivial axis carries it."""
        result: list[Axis] = [None] * len(sizes)
        self.freeze(axis[:1], "an axis of one unit is split", "")
        return result

    def merge(self, axes: Sequence[Axis], sizes: Sequence[int]) -> Axis:
        """Labels of the axis that ``axes`` (lengths ``sizes``) become when they are flattened into one."""
        moving = [i for i, a in enumerate(axes) if a is not None and sizes[i] > 1]
        if not moving:
            return None
        vectors = [axes[i] for i in moving]
        shape = [1] * len(sizes)
        for i in moving:
            shape[i] = sizes[i]
        core = self._product([v for v in vectors if v is not None])
        full = np.broadcast_to(core.reshape(shape), tuple(sizes)).reshape(-1)
        return core if full.size == core.size else frozen_copy(full)

    def _product(self, vectors: Sequence[Vector]) -> Vector:
        if len(vectors) == 1:
            return vectors[0]
        key = tuple(v.tobytes() for v in vectors)
        if key not in self._merged:
            shape = tuple(v.size for v in vectors)
            core = self.fresh(int(np.prod(shape)))
            self._merged[key] = core
            self._split[core.tobytes(), shape] = tuple(vectors)
            self.grids.append(Grid(core.reshape(shape), tuple(vectors)))
        return self._merged[key]

    def collapse(self, axis: Axis, sizes: Sequence[int], keep: int, where: str) -> Axis:
        """``axis`` reshaped to ``sizes``; all coordinates that share the index on axis ``keep`` are united.

        For operators that need every other axis of the split to stay whole, such as pixel shuffle.
        """
        if axis is None:
            return None
        rows = np.moveaxis(axis.reshape(tuple(sizes)), keep, 0).reshape(sizes[keep], -1)
        first = frozen_copy(rows[:, 0])
        for j in range(1, rows.shape[1]):
            self.unite(first, frozen_copy(rows[:, j]), where)
        return first

    def reshape(self, axes: Sequence[Axis], old: Sequence[int], new: Sequence[int]) -> list[Axis]:
        """Labels after ``reshape(old -> new)``: matching blocks of axes are found, flattened and split."""
        result: list[Axis] = []
        i = j = 0
        while i < len(old) or j < len(new):
            start_i, start_j = i, j
            left = right = 1
            if i < len(old):
                left, i = old[i], i + 1
            if j < len(new):
                right, j = new[j], j + 1
            while left != right:
                if left < right:
                    left, i = left * old[i], i + 1
                else:
                    right, j = right * new[j], j + 1
            block_old, block_new = list(old[start_i:i]), list(new[start_j:j])
            block = list(axes[start_i:i])
            real_old = [(a, s) for a, s in zip(block, block_old, strict=True) if s != 1]
            real_new = [s for s in block_new if s != 1]
            if [s for _, s in real_old] == real_new:
                parts = [a for a, _ in real_old]
            else:
                flat = self.merge([a for a, _ in real_old], [s for _, s in real_old])
                parts = self.split(flat, real_new)
            rest = iter(parts)
            result += [None if s == 1 else next(rest) for s in block_new]
        return result


def frozen_copy(vector: Vector) -> Vector:
    """A contiguous copy that nobody can write into."""
    copy = np.ascontiguousarray(vector)
    if copy.flags.writeable:
        copy.setflags(write=False)
    return copy
