"""The variants that are measured: widths on the alignment, brought to agree, each with its plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from prunekit.allocation.sites import Site, Variant
from prunekit.coupling.groups import Group
from prunekit.coupling.structure import Structure
from prunekit.planning.reconciling import reconcile
from prunekit.plans.contents import Plan
from prunekit.selection import Conditions
from prunekit.selection.choosing import prepared
from prunekit.selection.ranking import Allocation, best, counts_of
from prunekit.selection.ratio import nearest

MakePlan = Callable[[Mapping[str, Tensor]], Plan | None]
Units = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Attainable:
    """Which widths groups may take, and which units they keep at each; ``joined`` are allocations that go as one."""

    structure: Structure
    groups: tuple[Group, ...]
    scores: Mapping[str, Tensor]
    values: Mapping[str, Tensor]
    allocations: tuple[Allocation, ...]

    @classmethod
    def of(
        cls, structure: Structure, groups: Sequence[Group], scores: Mapping[str, Tensor], conditions: Conditions
    ) -> Attainable:
        """Alignment, granularity, bounds and ties are those of ``conditions``. Raises what ``select`` raises."""
        removed: dict[str, Fraction | None] = {group.name: Fraction(1, 2) for group in groups}
        values, _, allocations, _ = prepared(groups, structure.ties, scores, removed, conditions)
        return cls(structure, tuple(groups), scores, values, tuple(allocations))

    def agreed(self, kept: Mapping[str, Tensor]) -> Units:
        """``kept`` and all other groups whole, as the model's own arithmetic allows."""
        whole = {group.name: torch.arange(group.size, device="cpu") for group in self.groups}
        return reconcile(self.structure, self.groups, {**whole, **kept}, self.scores)

    def at(self, several: Sequence[Allocation], widths: Sequence[int]) -> Units:
        """The best units of the groups of some allocations, when each has the given width."""
        return {name: best(self.values[name], count) for name, count in counts_of(several, widths).items()}

    def moved(self, kept: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> set[str]:
        """The groups whose counts differ."""
        return {name for name, units in kept.items() if len(units) != len(base[name])}

    def near(self, kept: Units, make: MakePlan) -> list[Site]:
        """For each allocation a step wider, as it is in ``kept``, and a step narrower, all others as in ``kept``."""
        sites = []
        for a in self.allocations:
            now = len(kept[a.groups[0]]) // a.multiples[0]
            step = max(a.step, a.size // 8)
            wanted = [nearest(a.allowed, Fraction(width), "nearest") for width in (now + step, now - step)]
            variants = [Variant({name: kept[name] for name in a.groups}, make(kept), now / a.size)]
            for width in dict.fromkeys(wanted):
                found = self.agreed({**kept, **self.at([a], [width])})
                if width == now or self.moved(found, kept) - set(a.groups):
                    continue
                plan = make(found)
                if plan is not None:
                    variants.append(Variant({name: found[name] for name in a.groups}, plan, width / a.size))
            if len(variants) > 1:
                sites.append(Site(a.groups, tuple(sorted(variants, key=lambda v: -v.share))))
            else:
                sites.append(Site(a.groups, tuple(variants)))
        return sites


def sites_of(widths: Attainable, shares: Sequence[float], make: MakePlan) -> list[Site]:
    """A site for each allocation, or for several that the model's own arithmetic moves together.

    Variants are the widest that is allowed and those nearest to ``shares`` of the size; what ``make`` has no plan for
    is left out.
    """
    whole = {group.name: torch.arange(group.size, device="cpu") for group in widths.groups}
    sites = []
    for several in _together(widths, shares, whole):
        names = tuple(name for a in several for name in a.groups)
        variants: dict[tuple[int, ...], Variant] = {}
        for share in (1.0, *sorted(shares, reverse=True)):
            found = widths.agreed(widths.at(several, [_width(a, share) for a in several]))
            counts = tuple(len(found[name]) for name in names)
            if counts in variants or widths.moved(found, whole) - set(names):
                continue
            kept = {name: found[name] for name in names}
            plan = make(kept) if widths.moved(found, whole) else None
            if plan is not None and not plan.cuts:
                continue
            if plan is not None or not widths.moved(found, whole):
                left = sum(counts) / sum(len(whole[name]) for name in names)
                variants[counts] = Variant(kept, plan, left)
        if variants:
            sites.append(Site(names, tuple(sorted(variants.values(), key=lambda v: -v.share))))
    return sites


def _width(a: Allocation, share: float) -> int:
    """The allowed width nearest to a share of the size; the widest for all of it, the narrowest for none."""
    return nearest(a.allowed, Fraction(share) * a.size, "nearest") if share else a.allowed[0]


def _together(widths: Attainable, shares: Sequence[float], whole: Mapping[str, Tensor]) -> list[list[Allocation]]:
    """Allocations, those in one list of which none can be narrowed without another."""
    owner = {name: number for number, a in enumerate(widths.allocations) for name in a.groups}
    leader = list(range(len(widths.allocations)))

    def first(number: int) -> int:
        while leader[number] != number:
            number = leader[number]
        return number

    for number, a in enumerate(widths.allocations):
        for share in shares:
            found = widths.agreed(widths.at([a], [_width(a, share)]))
            for name in widths.moved(found, whole) - set(a.groups):
                if name in owner:
                    low, high = sorted((first(number), first(owner[name])))
                    leader[high] = low
    return [
        [b for m, b in enumerate(widths.allocations) if first(m) == number]
        for number in range(len(leader))
        if first(number) == number
    ]
