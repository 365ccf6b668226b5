"""The largest widths within a budget: one share for all by bisection, then single steps while they fit."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from prunekit.selection.ranking import Allocation, RankedTogether, counts_of, step_score
from prunekit.selection.ratio import nearest

Counts = Mapping[str, int]
Fits = Callable[[Counts], bool]
_HALVINGS = 24


def widest(allocations: Sequence[Allocation], pools: Sequence[str] | None, floor: Fraction, fits: Fits) -> list[int]:
    """Width of each allocation: as large as ``fits`` allows, so that no single step more would.

    ``fits`` takes units by group name and is monotone: what fits, fits when narrower. Every allocation, or every pool
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
        return fits(counts_of(allocations, widths))

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
    return filled(allocations, best, fits)


def filled(allocations: Sequence[Allocation], widths: Sequence[int], fits: Fits) -> list[int]:
    """``widths`` with single steps added, best mean score of the step first, until none fits."""
    best = list(widths)
    queue: list[tuple[float, int, int]] = []

    def offer(index: int) -> None:
        a = allocations[index]
        wider = next((w for w in a.allowed if w > best[index]), None)
        if wider is not None:
            heapq.heappush(queue, (-step_score(a, best[index], wider), index, wider))

    for index in range(len(allocations)):
        offer(index)
    while queue:
        _, index, wider = heapq.heappop(queue)
        tried = [*best[:index], wider, *best[index + 1 :]]
        if fits(counts_of(allocations, tried)):  # a step that does not fit now never will: fits is monotone
            best = tried
            offer(index)
    return best
