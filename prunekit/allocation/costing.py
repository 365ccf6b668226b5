"""What choices cost together, as sums over sites and pairs of sites: exact for every matrix between two widths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from prunekit.allocation.sites import Site
from prunekit.coupling.blocks import is_inside
from prunekit.coupling.cost import CostTerm, measure_ops
from prunekit.coupling.structure import Structure
from prunekit.quantities.counted_cost import CountedCost
from prunekit.quantities.gauge import Allowance, Gauge, fields_of

Values = NDArray[np.float64]
Fields = Mapping[str, float]
PAIR_CELLS = 60_000  # variables that pairs may take; with more, only the sites' own costs are counted


@dataclass(frozen=True, eq=False)
class Costs:
    """C(choice) = whole + sum of ``single[s][v]`` + sum of ``pairs[s, t][u, v]``, for each quantity by name.

    A product of two widths, rows times columns of a matrix between two sites, is exactly that. What three sites share
    (a product of three widths) is not in it; the caller compares with the true cost.
    """

    whole: Mapping[str, float]
    single: Mapping[str, Sequence[Values]]
    pairs: Mapping[tuple[int, int], Mapping[str, Values]]

    @classmethod
    def of(cls, structure: Structure, sites: Sequence[Site], gauge: Gauge) -> Costs:
        """The costs of ``sites`` in the quantities that the gauge limits, by evaluating one site and pairs of sites."""
        ask = _Evaluated(Allowance(gauge), sites)
        names = list(gauge.limits)
        whole = ask.at({})
        alone = [[ask.at({s: v}) for v in range(len(site.variants))] for s, site in enumerate(sites)]
        single = {q: [np.array([each[q] - whole[q] for each in row]) for row in alone] for q in names}
        joined: dict[tuple[int, int], dict[str, Values]] = {}
        neighbours = _sharing(structure, sites) if gauge.is_counted else []
        if sum(len(sites[s].variants) * len(sites[t].variants) for s, t in neighbours) > PAIR_CELLS:
            neighbours = []
        for s, t in neighbours:
            both = [[ask.at({s: u, t: v}) for v in range(len(alone[t]))] for u in range(len(alone[s]))]
            cells = {
                q: np.array([[cell[q] for cell in row] for row in both])
                - whole[q]
                - single[q][s][:, None]
                - single[q][t][None]
                for q in names
            }
            if any(np.abs(values).max() > 1e-9 * max(1.0, whole[q]) for q, values in cells.items()):
                joined[s, t] = cells
        return cls(whole, single, joined)

    def of_choice(self, choice: Sequence[int]) -> dict[str, float]:
        """The cost of a choice by quantity."""
        return {
            q: self.whole[q]
            + sum(float(row[v]) for row, v in zip(rows, choice, strict=True))
            + sum(float(cells[q][choice[s], choice[t]]) for (s, t), cells in self.pairs.items())
            for q, rows in self.single.items()
        }


class _Evaluated:
    """Costs at choices that differ from the whole in a few sites."""

    def __init__(self, allowance: Allowance, sites: Sequence[Site]) -> None:
        self._allowance, self._sites = allowance, sites
        self._moved: set[int] = set()

    def at(self, choice: Mapping[int, int]) -> dict[str, float]:
        counts: dict[str, int] = {}
        for s in self._moved - choice.keys():
            counts |= self._sites[s].variants[0].counts
        for s, v in choice.items():
            counts |= self._sites[s].variants[v].counts
        self._moved = set(choice)
        return self._allowance.usage(counts)


def _sharing(structure: Structure, sites: Sequence[Site]) -> list[tuple[int, int]]:
    """Pairs of sites whose widths are multiplied somewhere."""
    site_of = {structure.numbers[name]: number for number, site in enumerate(sites) for name in site.groups}
    found: set[tuple[int, int]] = set()
    for term in structure.terms:
        found.update(combinations(sorted(_sites_of(term, structure, site_of)), 2))
    return sorted(found)


def _sites_of(term: CostTerm, structure: Structure, site_of: Mapping[int, int]) -> set[int]:
    """The sites, by group, whose widths a term of the cost is a product of."""
    here: set[int] = set()
    for ref, k in term.axes:
        axes = structure.coupler.axes.get(ref.id)
        axis = axes[k] if axes else None
        if axis is not None:
            row = structure.rows.all[structure.rows.number(axis)]
            here.update(site_of[g] for g in row.groups if g in site_of)
    return here


@dataclass(frozen=True, eq=False)
class Dropped:
    """Modules that may go whole, by path, and what an affine map in their place costs; nothing where none may stand."""

    places: Sequence[str]
    map: Sequence[CostTerm] = ()

    def is_in(self, other: Dropped) -> bool:
        """Whether all of it lies in what another one takes along."""
        return all(is_inside(path, list(other.places)) for path in self.places)


def with_dropped(costs: Costs, structure: Structure, sites: Sequence[Site], drops: Sequence[Dropped]) -> Costs:
    """``costs``, and those of further sites: whole, without the modules of ``drops[d]``, and with a map in their place.

    What goes with these modules goes once: a width in them spares nothing more, nor does what lies in others that go;
    no map stands in what goes. Latency is no sum over modules, and is not known here.
    """
    site_of = {structure.numbers[name]: number for number, site in enumerate(sites) for name in site.groups}
    inside = [[term for term in structure.terms if is_inside(term.module, drop.places)] for drop in drops]
    single = {q: list(rows) for q, rows in costs.single.items()}
    pairs = dict(costs.pairs)
    for d, drop in enumerate(drops):
        left = [CountedCost(structure, terms) for terms in (inside[d], drop.map)]
        whole, stands = (fields_of(each({})) for each in left)
        count, here = 3 if drop.map else 2, len(sites) + d
        for q, rows in single.items():
            rows.append(np.array([0.0, -whole[q], stands[q] - whole[q]][:count]))
        for s in sorted({s for term in (*inside[d], *drop.map) for s in _sites_of(term, structure, site_of)}):
            each = [[fields_of(part(variant.counts)) for part in left] for variant in sites[s].variants]
            for part in left:
                part({name: structure.group(name).size for name in sites[s].groups})
            pairs[s, here] = {q: np.array([_beside(q, whole, stands, *cost)[:count] for cost in each]) for q in single}
        for e in range(d):
            twice = tuple(term for term in inside[d] if any(term is other for other in inside[e]))
            if twice:
                pairs[len(sites) + e, here] = _two_dropped(drops[e], drop, fields_of(measure_ops(twice, {})), single)
    return Costs(costs.whole, single, pairs)


def _beside(q: str, whole: Fields, stands: Fields, left: Fields, mapped: Fields) -> list[float]:
    """What a narrower width costs more than by itself where it lies in what stays, goes, or has a map in its place."""
    return [0.0, whole[q] - left[q], whole[q] - left[q] + mapped[q] - stands[q]]


def _two_dropped(first: Dropped, second: Dropped, twice: Fields, quantities: Iterable[str]) -> dict[str, Values]:
    """What two cost more together than one by one: what is in both goes once, and a map within the other is none."""
    found = {}
    of_maps = [fields_of(measure_ops(tuple(drop.map), {})) for drop in (first, second)]
    for q in quantities:
        cells = np.zeros((3 if first.map else 2, 3 if second.map else 2))
        cells[1:, 1:] = twice[q]
        if first.is_in(second):
            cells[2:, 1:] -= of_maps[0][q]
        elif second.is_in(first):
            cells[1:, 2:] -= of_maps[1][q]
        found[q] = cells
    return found
