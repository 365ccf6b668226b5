"""The largest widths within a budget: one share for all by bisection, then single steps while they fit."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from prunekit.selection.ranking import Allocation, RankedTogether, counts_of, step_score
from prunekit.selection.ratio import nearest

Counts = Mapping[str, int]
Takes = Callable[[Counts], bool]  # sets groups to so many units if they fit; else all stays as it was
_HALVINGS = 24


def widest(allocations: Sequence[Allocation], pools: Sequence[str] | None, floor: Fraction, takes: Takes) -> list[int]:
    """Width of each allocation: as large as ``takes`` allows, so that no single step more would.

    ``takes`` gets units by group name, groups that it has met and does not get stay as they are. It is monotone: what
    fits, fits when narrower. Every allocation, or every pool
    where ``pools`` names one for each allocation, keeps the same share of its units; what the alignment leaves of the
    budget goes to single steps, the best-scored first. Returns the narrowest widths where nothing fits.
    """

    together = [
        (here, RankedTogether.of([allocations[i] for i in here]))
        for pool in dict.fromkeys(pools or ())
        for here in [[i for i, name in enumerate(pools or ()) if name == pool]]
    ]

    def at(share: Fraction) -> list[int]:
        targets = [a.target_at(share) for a in allocations]
        if pools is None:
            return [nearest(a.allowed, target, "down") for a, target in zip(allocations, targets, strict=True)]
        found = [0] * len(allocations)
        for here, ranked in together:
            for i, width in zip(here, ranked.widths([targets[i] for i in here], floor, "down"), strict=True):
                found[i] = width
        return found

    def fitting(widths: Sequence[int]) -> bool:
        return takes(counts_of(allocations, widths))

    best = at(Fraction(1))
    if fitting(best):
        return best
    low, high = Fraction(0), Fraction(1)
    best = at(low)
    if not fitting(best):
        return best
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        widths = at(middle)
        if fitting(widths):
            low, best = middle, widths
        else:
            high = middle
    return filled(allocations, best, takes)


def filled(allocations: Sequence[Allocation], widths: Sequence[int], takes: Takes) -> list[int]:
    """``widths``, which ``takes`` has taken, with single steps added, best mean score first, until none fits."""
    best = list(widths)
    queue: list[tuple[float, int, int]] = []

    def offer(index: int) -> None:
        a = allocations[index]
        at = bisect_right(a.allowed, best[index])
        if at < len(a.allowed):
            wider = a.allowed[at]
            heapq.heappush(queue, (-step_score(a, best[index], wider), index, wider))

    for index in range(len(allocations)):
        offer(index)
    while queue:
        _, index, wider = heapq.heappop(queue)
        if takes(counts_of([allocations[index]], [wider])):  # a step that does not fit now never will
            best[index] = wider
            offer(index)
    return best
