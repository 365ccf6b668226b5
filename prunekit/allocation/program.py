"""The least damage within limits, as a mixed-integer linear program.

One binary x[s, v] for each site s and variant v, one of each site is 1; minimise the sum of damages. A pair of sites
whose widths are multiplied costs something for each pair of variants: y[u, v] = x[s, u] x[t, v], written linearly as
sum_v y[u, v] = x[s, u] and sum_u y[u, v] = x[t, v] with y >= 0, which is exact where x is binary and tight where it is
not (Adams and Sherali 1986, "A tight linearization for zero-one quadratic programming problems").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunekit.allocation.costing import Costs
from prunekit.allocation.silence import silent_output

GAP = 1e-3  # of the least damage, at which the search may end
_MANY = 6  # pairs that make a site a hub, at least


@dataclass(frozen=True)
class Solution:
    """The variant of each site, its summed damage, and the bound: no choice has less."""

    choice: tuple[int, ...]
    damage: float
    bound: float

    @property
    def gap(self) -> float:
        """By how much the damage may be above the least, as a share of it."""
        return max(0.0, self.damage - self.bound) / self.damage if self.damage > 0 else 0.0


class _Rows:
    """The rows of the matrix, in the making."""

    def __init__(self) -> None:
        self.at: list[int] = []
        self.columns: list[int] = []
        self.values: list[float] = []
        self.low: list[float] = []
        self.high: list[float] = []

    def add(self, columns: Sequence[int], values: Sequence[float], low: float, high: float) -> None:
        self.at += [len(self.low)] * len(columns)
        self.columns += columns
        self.values += values
        self.low.append(low)
        self.high.append(high)


def solved_program(
    damages: Sequence[NDArray[np.float64]],
    costs: Costs,
    limits: Mapping[str, float],
    *,
    without: Sequence[tuple[int, ...]] = (),
    apart: int = 1,
    caps: Sequence[tuple[Sequence[int], int]] = (),
    nodes: int = 200,
    hubs: int = 2,
) -> Solution | None:
    """The choice of least summed damage within ``limits``; None where none fits, or none is found.

    A site whose width is multiplied with many others', as a residual stream's is, makes the relaxation weak; its
    variants are tried one by one, and then its products are the others' own costs. So ``hubs`` of these at most.

    Args:
        damages: (variants,) for each site, >= 0; infinite for one that must not be taken.
        limits: quantity -> the most, in the units of ``costs``.
        without: choices that the found one must differ from in at least ``apart`` sites each.
        caps: sites of which so many at most are another than their first variant: of things that may be dropped.
        nodes: of each search tree, at most.
    """
    centre = _hub(costs) if hubs else None
    if centre is None:
        return _solved_as_one(damages, costs, limits, without, apart, caps, nodes)
    found: list[Solution] = []
    for variant in range(len(damages[centre])):
        if np.isfinite(damages[centre][variant]):
            only = list(damages)
            only[centre] = np.where(np.arange(len(only[centre])) == variant, only[centre], np.inf)
            left = _with_fixed(costs, centre, variant)
            asked: Any = {"without": without, "apart": apart, "caps": caps, "nodes": nodes}
            made = solved_program(only, left, limits, **asked, hubs=hubs - 1)
            found += [] if made is None else [made]
    if not found:
        return None
    best = min(found, key=lambda each: each.damage)
    return Solution(best.choice, best.damage, min(each.bound for each in found))


def _hub(costs: Costs) -> int | None:
    """The site that has most pairs, where these are many."""
    count = len(next(iter(costs.single.values()), ()))
    degree = Counter(site for pair in costs.pairs for site in pair)
    site, most = max(degree.items(), key=lambda item: item[1], default=(0, 0))
    return site if most >= max(_MANY, count // 4) else None


def _with_fixed(costs: Costs, site: int, variant: int) -> Costs:
    """The costs when a site is one of its variants: what it multiplies is the others' own."""
    single = {q: list(rows) for q, rows in costs.single.items()}
    pairs = {}
    for (s, t), cells in costs.pairs.items():
        if site not in (s, t):
            pairs[s, t] = cells
            continue
        other = t if s == site else s
        for q, values in cells.items():
            single[q][other] = single[q][other] + (values[variant] if s == site else values[:, variant])
    return Costs(costs.whole, single, pairs)


def _solved_as_one(
    damages: Sequence[NDArray[np.float64]],
    costs: Costs,
    limits: Mapping[str, float],
    without: Sequence[tuple[int, ...]],
    apart: int,
    caps: Sequence[tuple[Sequence[int], int]],
    nodes: int,
) -> Solution | None:
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    starts = np.concatenate([[0], np.cumsum([len(d) for d in damages])]).astype(int)
    rows, total = _Rows(), int(starts[-1])
    for s, row in enumerate(damages):
        rows.add(list(range(starts[s], starts[s + 1])), [1.0] * len(row), 1, 1)
    spent: dict[str, list[tuple[int, float]]] = {
        q: [(int(starts[s]) + v, float(x)) for s, row in enumerate(costs.single[q]) for v, x in enumerate(row)]
        for q in limits
    }
    for (s, t), cells in costs.pairs.items():
        total = _products(rows, starts, (s, t), (len(damages[s]), len(damages[t])), total, spent, cells)
    for q, most in limits.items():
        scale = max(costs.whole[q], 1e-30)
        room = (most - costs.whole[q]) / scale
        rows.add([c for c, _ in spent[q]], [x / scale for _, x in spent[q]], -np.inf, room)
    for choice in without:
        rows.add([int(starts[s]) + v for s, v in enumerate(choice)], [1.0] * len(choice), -np.inf, len(choice) - apart)
    for some, count in caps:
        taken = [int(starts[s]) + v for s in some for v in range(1, len(damages[s]))]
        rows.add(taken, [1.0] * len(taken), -np.inf, count)
    flat = np.concatenate(damages)
    worth = float(np.abs(flat[np.isfinite(flat)]).max(initial=0.0)) or 1.0
    goal = np.zeros(total)
    goal[: len(flat)] = np.where(np.isfinite(flat), flat, 0.0) / worth
    upper = np.ones(total)
    upper[: len(flat)] = np.isfinite(flat)
    integral = np.zeros(total)
    integral[: len(flat)] = 1
    matrix = csr_array((rows.values, (rows.at, rows.columns)), shape=(len(rows.low), total))
    with silent_output():
        found = milp(
            goal,
            integrality=integral,
            bounds=Bounds(0, upper),
            constraints=LinearConstraint(matrix, rows.low, rows.high),
            options={"mip_rel_gap": GAP, "node_limit": nodes},
        )
    if found.x is None:
        return None
    parts = np.split(found.x[: len(flat)], starts[1:-1])
    choice = tuple(int(part.argmax()) for part in parts)
    damage = float(sum(row[v] for row, v in zip(damages, choice, strict=True)))
    bound = float(found.mip_dual_bound if found.mip_dual_bound is not None else 0.0) * worth
    return Solution(choice, damage, min(bound, damage))


def _products(
    rows: _Rows,
    starts: NDArray[np.int_],
    sites: tuple[int, int],
    sizes: tuple[int, int],
    first: int,
    spent: Mapping[str, list[tuple[int, float]]],
    cells: Mapping[str, NDArray[np.float64]],
) -> int:
    """The products of two sites' variants, from column ``first`` on; the next free column."""
    (s, t), (many, others) = sites, sizes
    column = np.arange(first, first + many * others).reshape(many, others)
    for u in range(many):
        rows.add([*column[u].tolist(), int(starts[s]) + u], [*[1.0] * others, -1.0], 0, 0)
    for v in range(others):
        rows.add([*column[:, v].tolist(), int(starts[t]) + v], [*[1.0] * many, -1.0], 0, 0)
    for q, into in spent.items():
        into += zip(column.ravel().tolist(), cells[q].ravel().tolist(), strict=True)
    return first + many * others
