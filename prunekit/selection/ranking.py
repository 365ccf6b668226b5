"""How widths are shared out: each group by its own ratio, or a pool of groups by one ranking."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunekit.options.types import Rounding
from prunekit.selection.ratio import nearest, widths


@dataclass(frozen=True)
class Allocation:
    """Groups that keep one common count: a single group, or tied ones.

    A unit of one group may be worth several of a tied one (pairs of rotary positions against single positions):
    group i keeps ``multiples[i]`` times the count, of ``multiples[i] * size`` units. ``ranked`` (size,) holds scores
    in descending order, comparable between allocations; those of tied groups are averaged rank by rank. ``share`` is
    what remains of ``whole`` before alignment; ``whole`` is the size, or a larger one that earlier cuts started from.
    The width stays between ``least`` and ``most``.
    """

    groups: tuple[str, ...]
    multiples: tuple[int, ...]
    size: int
    step: int
    share: Fraction
    ranked: Tensor
    whole: int = 0
    least: int = 0
    most: int | None = None

    @property
    def target(self) -> Fraction:
        return self.target_at(self.share)

    def target_at(self, share: Fraction) -> Fraction:
        """Units of one group when ``share`` of ``whole`` remains, before alignment."""
        return min((self.whole or self.size) * share, Fraction(self.size))

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """``ranked``, where slices of it are cheap."""
        return np.asarray(self.ranked.numpy(), dtype=np.float64)

    @cached_property
    def allowed(self) -> list[int]:
        """Widths that it may take, ascending."""
        most = self.size if self.most is None else self.most
        return [w for w in widths(self.size, self.step) if self.least <= w <= most]


def local(allocations: Sequence[Allocation], rounding: Rounding) -> list[int]:
    """Width of each allocation by its own share."""
    return [nearest(a.allowed, a.target, rounding) for a in allocations]


@dataclass(frozen=True, eq=False)
class RankedTogether:
    """Allocations of one pool, and the order in which their alignment steps go out: best mean score of a step first.

    The order does not depend on how much goes out: a smaller ratio never narrows a group.
    """

    allocations: Sequence[Allocation]
    order: Sequence[tuple[float, int, int, int]]  # (score, allocation, width, units), best first

    @classmethod
    def of(cls, allocations: Sequence[Allocation]) -> RankedTogether:
        """The order of all steps of ``allocations``."""
        steps: list[tuple[float, int, int, int]] = []
        for index, a in enumerate(allocations):
            for start, width in pairwise(a.allowed):
                steps.append((-step_score(a, start, width), index, width, sum(a.multiples) * (width - start)))
        return cls(tuple(allocations), sorted(_in_order(steps)))

    def widths(self, targets: Sequence[Fraction], floor: Fraction, rounding: Rounding) -> list[int]:
        """Width of each allocation when together they keep what ``targets``, one for each, amount to.

        Every allocation starts at its floor. The rest of the total goes out in steps until the next one would pass it;
        with ``rounding="nearest"`` that step is still taken where it brings the total closer. So the total is exact
        where steps are 1, and one step off at most elsewhere, save where the floors alone are more.
        """
        sizes = [sum(a.multiples) for a in self.allocations]
        exact = sum((size * target for size, target in zip(sizes, targets, strict=True)), Fraction(0))
        total = math.floor(exact) if rounding == "down" else math.floor(exact + Fraction(1, 2))
        counts = [_floor(a, floor, target) for a, target in zip(self.allocations, targets, strict=True)]
        spent = sum(size * count for size, count in zip(sizes, counts, strict=True))
        for _, index, width, cost in self.order:
            if width <= counts[index]:
                continue
            if spent + cost > total:
                closer = spent + cost - total < total - spent
                if rounding == "nearest" and closer:
                    counts[index] = width
                break
            counts[index] = width
            spent += cost
        return counts


def step_score(a: Allocation, start: int, width: int) -> float:
    """The mean score of the units that ``width`` has more than ``start``."""
    return float(a.scores[start:width].mean())


def _in_order(steps: list[tuple[float, int, int, int]]) -> list[tuple[float, int, int, int]]:
    """Steps of one allocation in ascending width: rounding in a mean must not put a later step before an earlier."""
    ordered: list[tuple[float, int, int, int]] = []
    for step in steps:
        if ordered and ordered[-1][1] == step[1] and step[0] < ordered[-1][0]:
            step = (ordered[-1][0], *step[1:])
        ordered.append(step)
    return ordered


def _floor(a: Allocation, floor: Fraction, target: Fraction) -> int:
    """The least width: ``floor`` of the size, less where the target itself is less, and one step at least."""
    least = min(math.ceil(a.size * floor), math.floor(target))
    return next((width for width in a.allowed if width >= min(least, a.size)), a.allowed[-1])


def counts_of(allocations: Sequence[Allocation], counts: Sequence[int]) -> dict[str, int]:
    """Units by group name, when each allocation has the given width."""
    return {
        name: multiple * count
        for a, count in zip(allocations, counts, strict=True)
        for name, multiple in zip(a.groups, a.multiples, strict=True)
    }


def average_by_rank(scores: Sequence[Tensor], size: int) -> Tensor:
    """(multiple * size,) of each group -> (size,): mean over groups of the best, second best, ... score or run."""
    return torch.stack([s.sort(descending=True).values.reshape(size, -1).mean(1) for s in scores]).mean(0)


def best(scores: Tensor, count: int) -> Tensor:
    """The ``count`` highest-scored units, ascending, int64; of equal scores the lower index."""
    return torch.argsort(scores, descending=True, stable=True)[:count].sort().values
