"""The size equations of a structure, in systems that can be solved one without the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from prunekit.coupling.axis_rows import Rows
from prunekit.coupling.coupler import Coupler
from prunekit.graph.provenance import Expression, leaves
from prunekit.labels.labelling import Equation


@dataclass(frozen=True, eq=False)
class Systems:
    """Equations that share no attribute are in different systems.

    Attributes:
        each: the places of the equations of every system, ascending.
        of_row: for each row of axes the systems that read its length.
        groups: for each equation the numbers of the groups that it speaks of, those on its axis first.
        near: for each equation the places of those that share an attribute with it, its own among them.
    """

    each: tuple[tuple[int, ...], ...]
    of_row: Mapping[int, tuple[int, ...]]
    groups: tuple[tuple[int, ...], ...]
    near: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, coupler: Coupler, rows: Rows) -> Systems:
        """The systems of the equations that ``coupler`` found."""
        equations = coupler.equations
        attributes = [{x for x in leaves(e.expression) if x[0] == "attribute"} for e in equations]
        readers: dict[Expression, list[int]] = {}
        for place, read in enumerate(attributes):
            for attribute in read:
                readers.setdefault(attribute, []).append(place)
        near = tuple(tuple(sorted({n, *(k for a in read for k in readers[a])})) for n, read in enumerate(attributes))
        each = _parts_joined(len(equations), list(readers.values()))
        read_rows = [dict.fromkeys(_rows_of(coupler, rows, e)) for e in equations]
        of_row: dict[int, dict[int, None]] = {}
        for number, places in enumerate(each):
            for place in places:
                for row in read_rows[place]:
                    of_row.setdefault(row, {})[number] = None
        groups = tuple(tuple(dict.fromkeys(g for row in read for g in rows.all[row].groups)) for read in read_rows)
        return cls(each, {row: tuple(systems) for row, systems in of_row.items()}, groups, near)


def _parts_joined(count: int, sets: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """The places 0 to ``count`` in parts: those that are in one set, or joined by others, are in one part."""
    pairs = np.array([(places[0], other) for places in sets for other in places[1:]], dtype=np.int64).reshape(-1, 2)
    if not pairs.size:
        return tuple((place,) for place in range(count))
    graph = coo_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    parts: dict[int, list[int]] = {}
    for place, part in enumerate(connected_components(graph, directed=False)[1].tolist()):
        parts.setdefault(part, []).append(place)
    return tuple(map(tuple, parts.values()))


def _rows_of(coupler: Coupler, rows: Rows, e: Equation) -> Iterator[int]:
    """The rows whose lengths an equation reads, that of its axis first."""
    if e.axis is not None:
        yield rows.number(e.axis)
    for leaf in leaves(e.expression):
        axes = coupler.axes.get(leaf[1]) if leaf[0] == "size" else None
        axis = None if axes is None else axes[leaf[2]]
        if axis is not None:
            yield rows.number(axis)
