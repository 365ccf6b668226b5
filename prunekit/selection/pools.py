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
    nothing, or a group is in two pools.
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
    """Pool name per group name, from globs over roles and modules; the others of a role are a pool of their own."""
    pool_of: dict[str, str] = {}
    for index, patterns in enumerate(pools):
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            matched = [group for group in groups if in_pool(pattern, group)]
            if not matched:
                roles = ", ".join(sorted({group.role for group in groups}))
                raise InputError(
                    f"{pattern!r} matches no role and no module", where="pools", hint=f"known roles: {roles}"
                )
            for group in matched:
                if pool_of.setdefault(group.name, str(index)) != str(index):
                    raise InputError(
                        f"{group.name} ({group.role}) is in two pools", where="pools", hint="name each group once"
                    )
    return {group.name: pool_of.get(group.name, group.role) for group in groups}
