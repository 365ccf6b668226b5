"""Scores and a ratio become the units that are kept."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

from prunekit.coupling.groups import Group, Tie
from prunekit.errors import InputError, ScorerError, SelectionError
from prunekit.scorers.normalise import Normaliser
from prunekit.scorers.normalise import normaliser as normaliser_named
from prunekit.selection.ranking import Allocation, average_by_rank, best, local, ranked_together
from prunekit.selection.ratio import Align, Ratio, Rounding, exact_ratio, ratios, steps

logger = logging.getLogger(__name__)

Ranking = Literal["local", "global"]


def select(
    groups: Sequence[Group],
    ties: Sequence[Tie],
    scores: Mapping[str, Tensor],
    *,
    ratio: Ratio,
    ranking: Ranking = "local",
    align: Align = None,
    normaliser: str | Normaliser = "gaussian",
    pools: Sequence[Collection[str]] | None = None,
    rounding: Rounding = "nearest",
    floor: float = 0.1,
) -> dict[str, Tensor]:
    """Kept units of every group: group name -> ascending int64 indices.

    Inside a group no unit is dropped that scores higher than a kept one; equal scores go by index.

    Args:
        groups: the groups that may shrink; those that a ratio mapping leaves out are kept whole.
        ties: groups with equal counts; one that is several times as large keeps that many times the count. A tie that
            names a group outside ``groups`` keeps its others whole.
        scores: (group.size,) per group name, finite, higher = keep.
        ratio: share of units to remove in [0, 1), for all or by group name, role or glob over both.
        ranking: local (every group by its ratio) or global (groups of a pool by one ranking, pool total by ratio).
        align: widths are multiples of this; see ``selection/ratio.py: steps``.
        normaliser: makes scores comparable between groups; only global ranking reads it.
        pools: roles, or globs over roles, that are ranked together; any other role is its own pool.
        rounding: to the nearest allowed width, or to the next one below.
        floor: least share of a group that global ranking leaves, in [0, 1); a ratio above 1 - floor overrides it.

    Raises:
        InputError: a ratio, floor, alignment, pool or name that cannot be used.
        ScorerError: scores that are missing, misshapen or not finite; names the group.
        SelectionError: tied groups whose sizes are no multiples of the smallest, or with different ratios.
    """
    if ranking not in ("local", "global"):
        raise InputError(f"{ranking!r} is not a ranking", where="ranking", hint="choose 'local' or 'global'")
    if rounding not in ("down", "nearest"):
        raise InputError(f"{rounding!r} is not a rounding", where="rounding", hint="choose 'down' or 'nearest'")
    least = exact_ratio(floor, "floor")
    normalise = normaliser_named(normaliser) if isinstance(normaliser, str) else normaliser
    pool_of = assign_pools(groups, pools)
    values = {group.name: checked_scores(group, scores) for group in groups}
    kept = {group.name: torch.arange(group.size, device="cpu") for group in groups}
    allocations = allocate(groups, ties, ratios(groups, ratio), steps(groups, align), values, normalise)
    if ranking == "local":
        shares = [(allocations, local(allocations, rounding))]
    else:
        pooled: dict[str, list[Allocation]] = {}
        for allocation in allocations:
            pooled.setdefault(pool_of[allocation.groups[0]], []).append(allocation)
        shares = [(members, ranked_together(members, least, rounding)) for members in pooled.values()]
    for members, counts in shares:
        for allocation, count in zip(members, counts, strict=True):
            for name, multiple in zip(allocation.groups, allocation.multiples, strict=True):
                kept[name] = best(values[name], count * multiple)
    return kept


def allocate(
    groups: Sequence[Group],
    ties: Sequence[Tie],
    removed: Mapping[str, Fraction | None],
    step_of: Mapping[str, int],
    values: Mapping[str, Tensor],
    normalise: Normaliser,
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
        if share:
            found.append(
                Allocation(
                    groups=tuple(here),
                    multiples=tuple(size // least for size in sizes),
                    size=least,
                    step=math.lcm(
                        *(step_of[n] // math.gcd(step_of[n], s // least) for n, s in zip(here, sizes, strict=True))
                    ),
                    share=1 - share,
                    ranked=average_by_rank([normalise(values[name]) for name in here], least),
                )
            )
    return found


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


def assign_pools(groups: Sequence[Group], pools: Sequence[Collection[str]] | None) -> dict[str, str]:
    """Pool name per group name. Raises InputError where a pattern matches no role, or a role is in two pools."""
    roles = sorted({group.role for group in groups})
    pool_of: dict[str, str] = {}
    for index, patterns in enumerate(pools or ()):
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            matched = [role for role in roles if fnmatchcase(role, pattern)]
            if not matched:
                raise InputError(f"{pattern!r} matches no role", where="pools", hint=f"known roles: {', '.join(roles)}")
            for role in matched:
                if pool_of.setdefault(role, str(index)) != str(index):
                    raise InputError(f"role {role!r} is in two pools", where="pools", hint="name each role once")
    return {group.name: pool_of.get(group.role, group.role) for group in groups}


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
