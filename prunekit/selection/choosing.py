"""Scores and a ratio, or a target, become the units that are kept."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import torch
from torch import Tensor

from prunekit.coupling.groups import Group, Tie
from prunekit.errors import InputError, ScorerError, SelectionError
from prunekit.options import Options
from prunekit.options.shares import exact_ratio
from prunekit.options.types import Ratio
from prunekit.scorers.normalisers import Normaliser
from prunekit.scorers.normalisers import normaliser as normaliser_named
from prunekit.selection.budget import Takes, widest
from prunekit.selection.least import refuse_too_few
from prunekit.selection.pools import RANKINGS, in_pool, pools_for
from prunekit.selection.ranking import Allocation, RankedTogether, average_by_rank, best, counts_of, local
from prunekit.selection.ratio import block_sizes, bounds, narrowed, ratios, steps, widths

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Conditions:
    """How units are chosen, apart from how many: the options, and what they refer to.

    Attributes:
        options: ranking, align, normaliser, pools, rounding, min_ratio and max_ratio of them.
        floor: least share of a group that ranking together leaves, in [0, 1); a ratio above 1 - floor overrides it.
        kinds: what reads each parameter, for isomorphic ranking.
        sizes: the size that a ratio refers to by group name, where earlier cuts have made the group smaller.
    """

    options: Options = field(default_factory=Options)
    floor: float = 0.1
    kinds: Mapping[str, str] | None = None
    sizes: Mapping[str, int] | None = None

    def about(self, groups: Sequence[Group]) -> Conditions:
        """What of it says something about ``groups``, where some have been left out since it was written."""
        choice, scope = self.options.choice, self.options.scope
        pools = None
        if choice.pools is not None:
            each = [[pool] if isinstance(pool, str) else list(pool) for pool in choice.pools]
            met = [[p for p in pool if any(in_pool(p, g) for g in groups)] for pool in each]
            pools = [pool for pool in met if pool]
        narrower = self.options.replaced(
            pools=pools,
            align=narrowed(choice.align, groups),
            granularity=narrowed(choice.granularity, groups),
            min_ratio=narrowed(scope.min_ratio, groups),
            max_ratio=narrowed(scope.max_ratio, groups),
        )
        return replace(self, options=narrower)


def select(
    groups: Sequence[Group],
    ties: Sequence[Tie],
    scores: Mapping[str, Tensor],
    ratio: Ratio,
    conditions: Conditions,
) -> dict[str, Tensor]:
    """Kept units of every group: group name -> ascending int64 indices.

    Inside a group no unit is dropped that scores higher than a kept one; equal scores go by index.

    Args:
        groups: the groups that may shrink; those that a ratio mapping leaves out are kept whole.
        ties: groups with equal counts; one that is several times as large keeps that many times the count. A tie that
            names a group outside ``groups`` keeps its others whole.
        scores: (group.size,) per group name, finite, higher = keep.
        ratio: share of units to remove in [0, 1), for all or by group name, role or glob over both.
        conditions: how; local ranking takes the ratio of every group, the others rank groups together and take it of
            all their units (``selection/pools.py``).

    Raises:
        InputError: a ratio, floor, bound, alignment, pool or name that cannot be used.
        ScorerError: scores that are missing, misshapen or not finite; names the group.
        SelectionError: tied groups whose sizes are no multiples of the smallest, or with different ratios.
    """
    choice = conditions.options.choice
    values, least, allocations, pool_of = prepared(groups, ties, scores, ratios(groups, ratio), conditions)
    rounding = choice.rounding
    if rounding not in ("down", "nearest"):
        raise InputError(f"{rounding!r} is not a rounding", where="rounding", hint="choose 'down' or 'nearest'")
    if choice.ranking == "local":
        refuse_too_few(groups, allocations, conditions.options.scope)
        shares = [(allocations, local(allocations, rounding))]
    else:
        pooled: dict[str, list[Allocation]] = {}
        for allocation in allocations:
            pooled.setdefault(pool_of[allocation.groups[0]], []).append(allocation)
        shares = [
            (members, RankedTogether.of(members).widths([a.target for a in members], least, rounding))
            for members in pooled.values()
        ]
    kept = {group.name: torch.arange(group.size, device="cpu") for group in groups}
    for members, counts in shares:
        kept |= chosen(members, counts, values)
    return kept


def select_within(
    groups: Sequence[Group], ties: Sequence[Tie], scores: Mapping[str, Tensor], takes: Takes, conditions: Conditions
) -> tuple[dict[str, Tensor], list[Allocation]]:
    """The most units that ``takes`` takes, and the allocations that they came from; the rest as for ``select``.

    Where not even the narrowest widths fit, those are returned.
    """
    removed: dict[str, Fraction | None] = {group.name: Fraction(1, 2) for group in groups}
    values, least, allocations, pool_of = prepared(groups, ties, scores, removed, conditions)
    pools = None if conditions.options.choice.ranking == "local" else [pool_of[a.groups[0]] for a in allocations]
    kept = {group.name: torch.arange(group.size, device="cpu") for group in groups}
    return kept | chosen(allocations, widest(allocations, pools, least, takes), values), allocations


def prepared(
    groups: Sequence[Group],
    ties: Sequence[Tie],
    scores: Mapping[str, Tensor],
    removed: Mapping[str, Fraction | None],
    conditions: Conditions,
) -> tuple[dict[str, Tensor], Fraction, list[Allocation], dict[str, str]]:
    """Checked scores, the floor, what is to be shared out, and the pool of every group."""
    choice, scope = conditions.options.choice, conditions.options.scope
    if choice.ranking not in RANKINGS:
        raise InputError(
            f"{choice.ranking!r} is not a ranking", where="ranking", hint=f"choose one of {', '.join(RANKINGS)}"
        )
    least = exact_ratio(conditions.floor, "floor")
    normalise = normaliser_named(choice.normaliser)
    pool_of = pools_for(choice.ranking, groups, choice.pools, conditions.kinds)
    blocks = block_sizes(groups, choice.granularity)
    values = {group.name: by_block(checked_scores(group, scores), blocks[group.name]) for group in groups}
    step_of = {name: math.lcm(step, blocks[name]) for name, step in steps(groups, choice.align).items()}
    limits = bounds(groups, scope.min_ratio, scope.max_ratio)
    whole = conditions.sizes or {}
    allocations = allocate(groups, ties, removed, step_of, values, normalise, limits, whole)
    return values, least, allocations, pool_of


def by_block(values: Tensor, block: int) -> Tensor:
    """Every unit with the mean score of its block, so that blocks stay together where scores are sorted."""
    return values if block == 1 else values.view(-1, block).mean(1).repeat_interleave(block)


def chosen(allocations: Sequence[Allocation], counts: Sequence[int], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The best units of every group of the allocations, when each allocation has the given width."""
    return {name: best(values[name], count) for name, count in counts_of(allocations, counts).items()}


def allocate(
    groups: Sequence[Group],
    ties: Sequence[Tie],
    removed: Mapping[str, Fraction | None],
    step_of: Mapping[str, int],
    values: Mapping[str, Tensor],
    normalise: Normaliser,
    limits: Mapping[str, tuple[Fraction, Fraction]],
    whole: Mapping[str, int],
) -> list[Allocation]:
    """Allocations of the groups that shrink; the others, of ratio 0 or left out, stay whole."""
    by_name = {group.name: group for group in groups}
    found = []
    for names in connected(list(by_name), ties):
        here = [name for name in names if name in by_name]
        asked = {removed[name] for name in here} - {None}
        if len(here) < len(names):
            if asked - {Fraction(0)}:
                logger.info("%s stay whole: they are tied to a group that is not pruned", ", ".join(here))
            continue
        sizes = [by_name[name].size for name in here]
        least = min(sizes)
        if any(size % least for size in sizes) or len(asked) > 1:
            what = "sizes" if any(size % least for size in sizes) else "ratios"
            raise SelectionError(
                f"tied groups must keep equal counts but have different {what}: {', '.join(here)}",
                where=here[0],
                hint="give them one ratio, or exclude them all",
            )
        share = next(iter(asked), None)
        if share or any(limits[name][0] for name in here):
            step = math.lcm(*(step_of[n] // math.gcd(step_of[n], s // least) for n, s in zip(here, sizes, strict=True)))
            original = max(whole.get(n, s) * least // s for n, s in zip(here, sizes, strict=True))
            low, high = max(limits[n][0] for n in here), min(limits[n][1] for n in here)
            enough = max(-(-by_name[n].least * least // s) for n, s in zip(here, sizes, strict=True))
            fewest = max(original * (1 - high), Fraction(enough))
            narrow, wide = _between(widths(least, step), fewest, original * (1 - low))
            found.append(
                Allocation(
                    groups=tuple(here),
                    multiples=tuple(size // least for size in sizes),
                    size=least,
                    step=step,
                    share=1 - (share or Fraction(0)),
                    ranked=average_by_rank([normalise(values[name]) for name in here], least),
                    whole=original,
                    least=narrow,
                    most=wide,
                )
            )
    return found


def _between(allowed: Sequence[int], low: Fraction, high: Fraction) -> tuple[int, int]:
    """The narrowest allowed width that is no less than ``low``, and the widest that is no more than ``high``.

    Where alignment leaves none between the two, the widest wins: the share that must stay, stays.
    """
    least = next((w for w in allowed if w >= low), allowed[-1])
    most = max([w for w in allowed if w <= high], default=allowed[0])
    return least, max(least, most)


def connected(names: Sequence[str], ties: Sequence[Tie]) -> list[list[str]]:
    """Names joined by ties, in the order of their first; every name occurs once."""
    leader: dict[str, list[str]] = {name: [name] for name in names}
    for tie in ties:
        if not any(name in leader for name in tie.groups):
            continue
        merged: list[str] = []
        for name in tie.groups:
            for member in leader.get(name, [name]):
                if member not in merged:
                    merged.append(member)
        for member in merged:
            leader[member] = merged
    unique = {id(members): members for members in leader.values()}
    return list(unique.values())


def checked_scores(group: Group, scores: Mapping[str, Tensor]) -> Tensor:
    """The group's scores as float64 on the CPU."""
    if group.name not in scores:
        raise ScorerError(f"group {group.name} has no scores", where=group.name, hint="score every group first")
    values = scores[group.name].detach().to("cpu", torch.float64)
    if values.shape != (group.size,):
        raise ScorerError(
            f"group {group.name} has scores of shape {tuple(values.shape)}, not ({group.size},)", where=group.name
        )
    if not bool(torch.isfinite(values).all()):
        raise ScorerError(
            f"scores of group {group.name} are NaN or infinite", where=group.name, hint="check the weights and the data"
        )
    return values
