"""From labels to fates: connected components, the closure over grids, and who owns each coordinate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from prunekit.labels.vectors import Grid, Labels, Vector


@dataclass(frozen=True, eq=False)
class Fates:
    """``fate`` maps labels to classes; ``owners`` (classes, n) lists the units that a class lives by, -1 padded; n is
    what the class with the most of them needs, 1 in a network without heads.

    A class is alive iff all its owners are. Frozen classes own nothing and always live. ``family`` keeps the rows
    and the columns of a grid apart, ``reasons`` say why classes are frozen.
    """

    fate: Vector
    owners: Vector
    frozen: NDArray[np.bool_]
    family: Vector
    reasons: Reasons


@dataclass(frozen=True, eq=False)
class Reasons:
    """Why classes are frozen: ``which`` (classes,) of the ``told``, each a reason and where it was met; -1 for none."""

    which: Vector
    told: tuple[tuple[str, str], ...]

    def of(self, number: int) -> tuple[str, str] | None:
        """Why a class is frozen; None where it is not, or nobody said."""
        at = int(self.which[number])
        return self.told[at] if at >= 0 else None


def resolve(labels: Labels) -> Fates:
    """Unites, closes over grids until nothing changes, and finds the owners of every class."""
    edges = list(labels.edges)
    frozen_labels: Freezes = [(v, reason, where, None) for v, reason, where in labels.freezes]
    while True:
        fate = _components(labels.count, edges)
        frozen = np.zeros(int(fate.max()) + 1, dtype=bool)
        frozen[fate[0]] = True
        for vector, *_ in frozen_labels:
            frozen[fate[vector]] = True
        new_edges, new_freezes = _close(labels.grids, fate, frozen)
        if not new_edges and not new_freezes:
            break
        edges += new_edges
        frozen_labels += new_freezes
    owners = _owners(labels.grids, fate, frozen)
    return Fates(fate, owners, frozen, _families(labels, fate), _reasons(frozen_labels, fate))


def _reasons(frozen_labels: Freezes, fate: Vector) -> Reasons:
    """The first reason for each frozen class; what followed from another freeze tells that one's reason."""
    which = np.full(int(fate.max()) + 1, -1, dtype=np.int64)
    for number, (vector, _, _, cause) in enumerate(frozen_labels):
        follows = number
        if cause is not None:
            causes = fate[cause].reshape(-1)
            causes = causes[which[causes] >= 0]
            follows = int(which[causes.min()]) if causes.size else number
        classes = fate[vector]
        which[classes[which[classes] < 0]] = follows
    return Reasons(which, tuple((reason, where) for _, reason, where, _ in frozen_labels))


def _components(count: int, edges: list[tuple[Vector, Vector]]) -> Vector:
    if not edges:
        return np.arange(count, dtype=np.int64)
    left = np.concatenate([a for a, _ in edges])
    right = np.concatenate([b for _, b in edges])
    graph = coo_matrix((np.ones(left.size, np.int8), (left, right)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


Edges = list[tuple[Vector, Vector]]
Freezes = list[tuple[Vector, str, str, Vector | None]]  # labels, reason, where, labels whose freeze it follows from


def _close(grids: list[Grid], fate: Vector, frozen: NDArray[np.bool_]) -> tuple[Edges, Freezes]:
    """What follows from cells that share a fate, or are frozen, for the rows and columns of their grids."""
    edges: Edges = []
    freezes: Freezes = []
    first: dict[bytes, Grid] = {}
    holder = np.full(frozen.size, -1, dtype=np.int64)
    for number, grid in enumerate(grids):
        cells = fate[grid.cells]
        parts = [fate[a] for a in grid.axes]
        _spread_frozen(grid, cells, parts, frozen, edges, freezes)
        _unite_duplicates(grid, cells, parts, edges)
        key = cells.tobytes() + str(cells.shape).encode()
        twin = first.setdefault(key, grid)
        if twin is not grid:
            for a, b in zip(twin.axes, grid.axes, strict=True):
                _add(edges, fate, a, b)
        else:
            _clash(number, grid, grids, cells, fate, frozen, holder, freezes)
    return edges, freezes


def _add(edges: Edges, fate: Vector, a: Vector, b: Vector) -> None:
    different = fate[a] != fate[b]
    if different.any():
        edges.append((a[different], b[different]))


def _spread_frozen(
    grid: Grid, cells: Vector, parts: list[Vector], frozen: NDArray[np.bool_], edges: Edges, freezes: Freezes
) -> None:
    dead = frozen[cells]
    for k, part in enumerate(parts):
        other = tuple(i for i in range(cells.ndim) if i != k)
        hit = dead.any(axis=other) & ~frozen[part]
        if hit.any():
            freezes.append((grid.axes[k][hit], "a part of it cannot be removed", "", grid.cells[dead]))
    loose = [k for k, part in enumerate(parts) if not frozen[part].all()]
    if not loose and not dead.all():
        fixed = np.concatenate(grid.axes)
        freezes.append((grid.cells[~dead], "none of its rows and columns can be removed", "", fixed))
    if len(loose) == 1:
        k = loose[0]
        shape = [1] * cells.ndim
        shape[k] = -1
        label = np.broadcast_to(grid.axes[k].reshape(shape), cells.shape)
        target = np.broadcast_to(parts[k].reshape(shape), cells.shape)
        different = (cells != target) & ~(dead & frozen[target])
        if different.any():
            edges.append((grid.cells[different], label[different]))


def _unite_duplicates(grid: Grid, cells: Vector, parts: list[Vector], edges: Edges) -> None:
    """Two cells of one fate at different places bring their rows together, and their columns."""
    flat = cells.reshape(-1)
    values, where = np.unique(flat, return_index=True)
    if values.size == flat.size:
        return
    twin = where[np.searchsorted(values, flat)]
    index, twin_index = np.unravel_index(np.arange(flat.size), cells.shape), np.unravel_index(twin, cells.shape)
    for k, part in enumerate(parts):
        a, b = grid.axes[k][index[k]], grid.axes[k][twin_index[k]]
        different = part[index[k]] != part[twin_index[k]]
        if different.any():
            edges.append((a[different], b[different]))


def _clash(
    number: int,
    grid: Grid,
    grids: list[Grid],
    cells: Vector,
    fate: Vector,
    frozen: NDArray[np.bool_],
    holder: Vector,
    freezes: Freezes,
) -> None:
    """One axis read as two different grids: nothing in either can be removed without breaking the other."""
    loose = sum(not frozen[fate[a]].all() for a in grid.axes)
    if loose < 2:
        return
    flat = cells.reshape(-1)
    for other in np.unique(holder[flat]):
        if other < 0:
            continue
        for axis in (*grid.axes, *grids[int(other)].axes):
            if not frozen[fate[axis]].all():
                freezes.append((axis, "it is split in two ways that do not fit each other", "", None))
    holder[flat] = number


def _owners(grids: list[Grid], fate: Vector, frozen: NDArray[np.bool_]) -> Vector:
    owners = np.where(frozen, -1, np.arange(frozen.size)).reshape(-1, 1)
    pending = []
    cell = np.zeros(frozen.size, dtype=bool)
    for grid in grids:
        if sum(not frozen[fate[a]].all() for a in grid.axes) >= 2:
            pending.append(grid)
            cell[fate[grid.cells].reshape(-1)] = True
    cell[frozen] = False
    ready = ~cell
    while pending:
        rest = []
        for grid in pending:
            parts = [fate[a] for a in grid.axes]
            if not all(ready[p].all() for p in parts):
                rest.append(grid)
                continue
            cells = fate[grid.cells]
            index = np.indices(cells.shape)
            found = np.concatenate([owners[p[i]].reshape(cells.size, -1) for p, i in zip(parts, index, strict=True)], 1)
            packed = _pack(found)
            owners = _widened(owners, packed.shape[1])
            owners[cells.reshape(-1)] = _widened(packed, owners.shape[1])
            ready[cells.reshape(-1)] = True
        if len(rest) == len(pending):
            for grid in rest:  # grids that contain each other: no order of removal exists
                owners[fate[grid.cells].reshape(-1)] = -1
            break
        pending = rest
    return owners


def _pack(found: Vector) -> Vector:
    """Unique owners of each row, to the left, -1 padded."""
    ordered = -np.sort(-found, axis=1)
    repeated = np.zeros_like(ordered, dtype=bool)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    ordered[repeated] = -1
    packed = -np.sort(-ordered, axis=1)
    return packed[:, : max(1, int((packed >= 0).sum(1).max(initial=1)))]


def _widened(owners: Vector, width: int) -> Vector:
    missing = max(0, width - owners.shape[1])
    return np.pad(owners, ((0, 0), (0, missing)), constant_values=-1) if missing else owners


def _families(labels: Labels, fate: Vector) -> Vector:
    """Components over classes that appear on one axis of a grid; classes outside grids are all of family 0."""
    edges = [(fate[a[:-1]], fate[a[1:]]) for g in labels.grids for a in g.axes if a.size > 1]
    count = int(fate.max()) + 1
    if not edges:
        return np.zeros(count, dtype=np.int64)
    family = _components(count, edges) + 1
    inside = np.zeros(count, dtype=bool)
    for g in labels.grids:
        for a in g.axes:
            inside[fate[a]] = True
    return np.where(inside, family, 0)
