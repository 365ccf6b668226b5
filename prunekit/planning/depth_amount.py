"""How much of depth goes: so many units by a ratio, or as many as a target takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from fractions import Fraction

from torch import Tensor, nn

from prunekit.coupling.groups import Group
from prunekit.coupling.structure import Structure
from prunekit.options import Options, Scope
from prunekit.options.shares import exact_ratio
from prunekit.planning.depth_bounds import admitted, check_enough_are_left
from prunekit.plans.contents import Plan
from prunekit.quantities.gauge import Baseline, Gauge
from prunekit.removal.covering import Unit
from prunekit.roles import DEPTH
from prunekit.selection.ratio import narrowed, ratios


def groups_asked(structure: Structure, options: Options) -> tuple[Group, ...]:
    """The groups of the roles that are asked for."""
    roles = options.scope.roles or ()
    return tuple(group for group in structure.depth.groups if group.role in roles)


class Until:
    """When enough is gone: so many of the groups of each pool, or a target met."""

    def __init__(self, groups: Sequence[Group], counts: Mapping[frozenset[str], int], gauge: Gauge | None) -> None:
        self.pools, self.counts, self.gauge = list(counts), counts, gauge
        if gauge is not None:
            self.pools = [frozenset(group.name for group in groups)]

    def __call__(self, pool: frozenset[str], gone: Sequence[Unit], kept: Mapping[str, Tensor]) -> bool:
        if self.gauge is None:
            return sum(name in pool for name, _ in gone) >= self.counts[pool]
        return self.gauge.met(self.gauge.exactly(kept))


def enough_asked(
    model: nn.Module,
    structure: Structure,
    options: Options,
    baseline: Baseline | None,
    sizes: Mapping[str, int] | None,
    gone: Mapping[str, int] | None,
) -> Until:
    """What the options' target or ratio says.

    A ratio is of the original's units, ``sizes`` by group and role, of which so many are ``gone``.
    """
    target, groups = options.scope.target, groups_asked(structure, options)
    if target is not None:
        baseline = baseline or Baseline.of(model, structure, target, options.cutting.latency)
        return Until(groups, {}, Gauge.of(model, structure, target, baseline))
    asked, groups = options.scope.share, admitted(structure, groups, options.scope)
    here = {group.name for group in (*structure.groups, *structure.depth.groups)}
    went = sizes is not None and not sizes.keys() <= here | {*DEPTH}
    shares = ratios(groups, narrowed(asked, groups) if went else asked)  # a group that went has no key to match
    whole = {group.name: (sizes or {}).get(group.name, group.size) for group in groups}
    counts = {}
    for share in dict.fromkeys(shares[g.name] or 0 for g in groups):
        pool = [g for g in groups if (shares[g.name] or 0) == share]
        check_enough_are_left(pool, share)
        keys = _keys_of(share, options, sizes or {})
        every = sum((sizes or {})[key] for key in keys) or sum(whole[g.name] for g in pool)
        earlier = sum((gone or {}).get(key, 0) for key in keys) if keys else every - sum(g.size for g in pool)
        rounded = math.floor(float(share) * every + (0.5 if options.choice.rounding == "nearest" else 0))
        count = rounded - earlier
        counts[frozenset(g.name for g in pool)] = max(0, count)
    return Until(groups, counts, None)


def original_sizes(structure: Structure, scope: Scope | None) -> dict[str, int]:
    """Units of every group by name; of depth, where ``scope`` asks for it, those of each role together as well.

    A list of which one entry is left, and a branch that went everywhere, are no groups any more; their role is.
    """
    deep = structure.depth.groups if scope is not None else ()
    found = {group.name: group.size for group in (*structure.groups, *deep)}
    for group in admitted(structure, deep, scope) if scope is not None else ():
        found[str(group.role)] = found.get(str(group.role), 0) + group.size
    return found


def gone_so_far(plans: Iterable[Plan]) -> dict[str, int]:
    """How many units of depth some plans take, by group and by role."""
    found: dict[str, int] = {}
    for width in (width for plan in plans for width in plan.widths if width.role in DEPTH):
        for key in (width.group, str(width.role)):
            found[key] = found.get(key, 0) + width.before - width.after
    return found


def _keys_of(share: Fraction | int, options: Options, sizes: Mapping[str, int]) -> list[str]:
    """The roles or groups of ``sizes`` of which this share is asked for; none where the ratio's keys are others."""
    asked, roles = options.scope.share, [str(role) for role in options.scope.roles or () if role in sizes]
    if not isinstance(asked, Mapping):
        return roles
    shares = {key: exact_ratio(value, f"ratio[{key!r}]") for key, value in asked.items()}
    if all(any(fnmatchcase(role, key) for role in DEPTH) for key in shares):
        keys = {role: max((k for k in shares if fnmatchcase(role, k)), key=len, default=None) for role in roles}
        return [role for role, key in keys.items() if key is not None and shares[key] == share]
    return [key for key in shares if shares[key] == share] if shares.keys() <= sizes.keys() else []
