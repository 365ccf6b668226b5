"""What choices cost together, as sums over sites and pairs of sites: exact for every matrix between two widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from prunekit.allocation.sites import Site
from prunekit.coupling.structure import Structure
from prunekit.quantities.gauge import Allowance, Gauge

Values = NDArray[np.float64]
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
        neighbours = [] if "latency" in names else _sharing(structure, sites)  # a time is no sum of products
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
        here: set[int] = set()
        for ref, k in term.axes:
            axes = structure.coupler.axes.get(ref.id)
            axis = axes[k] if axes else None
            if axis is not None:
                row = structure.rows.all[structure.rows.number(axis)]
                here.update(site_of[g] for g in row.groups if g in site_of)
        found.update(combinations(sorted(here), 2))
    return sorted(found)
