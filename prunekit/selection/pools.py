"""Which groups are ranked together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import get_args

import torch

from prunekit.coupling.groups import Group
from prunekit.errors import InputError
from prunekit.options.types import Ranking
from prunekit.selection.patterns import names_of
from prunekit.selection.ratio import matches

RANKINGS: tuple[str, ...] = get_args(Ranking)


def pools_for(
    ranking: str,
    groups: Sequence[Group],
    pools: Sequence[Collection[str]] | None,
    kinds: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Pool name per group name.

    ``global`` ranks all groups together, or those of the roles in each of ``pools``; ``role`` those of one role;
    ``isomorphic`` those of one structure (Fang et al. 2024, arXiv 2407.04616): the same role, and parameters of the
    same ``kinds`` (what reads them), axes and coordinates a unit. Raises InputError where a pattern matches
    nothing, or two pools name a group alike.
    """
    if ranking == "isomorphic":
        return {group.name: str(kind_of(group, kinds or {})) for group in groups}
    if pools:
        return by_patterns(groups, pools)
    return {group.name: group.role if ranking == "role" else "all" for group in groups}


def kind_of(group: Group, kinds: Mapping[str, str]) -> tuple[object, ...]:
    """What two groups must share to be isomorphic: everything but widths, names and places."""
    members = sorted(
        (
            kinds.get(member.tensor, ""),
            member.axis,
            member.is_buffer,
            tuple(sorted(set(torch.bincount(member.unit_of[member.unit_of >= 0], minlength=1).tolist()) - {0})),
        )
        for member in group.members
    )
    return (group.role, *members)


def in_pool(pattern: str, group: Group) -> bool:
    """Whether a pool's pattern names a group: by its role, or as ``include`` would."""
    return any(fnmatchcase(name, pattern) for name in names_of(group))


def by_patterns(groups: Sequence[Group], pools: Sequence[Collection[str]]) -> dict[str, str]:
    """Pool name per group name, from globs over roles and modules; the others of a role are a pool of their own.

    A layer names the width that it writes and the one that it reads, which is its neighbour's: a group that two pools
    name is in the one that names it for its own sake.
    """
    pool_of: dict[str, tuple[bool, str, str]] = {}
    for index, patterns in enumerate(pools):
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            matched = [group for group in groups if in_pool(pattern, group)]
            if not matched:
                roles = ", ".join(sorted({group.role for group in groups}))
                raise InputError(
                    f"{pattern!r} matches no role and no module", where="pools", hint=f"known roles: {roles}"
                )
            for group in matched:
                found = matches(pattern, group), str(index), pattern
                known = pool_of.setdefault(group.name, found)
                if known[1] != found[1] and known[0] == found[0]:
                    raise _in_two(group, known[2], found)
                pool_of[group.name] = max(known, found, key=lambda each: each[0])
    return {group.name: pool_of[group.name][1] if group.name in pool_of else group.role for group in groups}


def _in_two(group: Group, first: str, second: tuple[bool, str, str]) -> InputError:
    own, _, pattern = second
    why = "" if own else ": both hold layers that meet it, and neither the one that it is named after"
    return InputError(
        f"{group.name} ({group.role}) is in two pools, by {first!r} and by {pattern!r}{why}",
        where="pools",
        hint=f"name each group once: {group.name!r} in one pool, and in the other something that it does not match",
    )
