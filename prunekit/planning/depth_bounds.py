"""Which blocks and branches the options admit, and how many of each group go at least and at most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

from prunekit.coupling.blocks import is_inside
from prunekit.coupling.groups import Frozen, Group
from prunekit.coupling.structure import Structure
from prunekit.errors import InputError, SelectionError
from prunekit.options import Options, Scope
from prunekit.removal.covering import Cover, Unit
from prunekit.selection.ratio import narrowed, ratios


def left_out(structure: Structure, groups: Sequence[Group], options: Options, cover: Cover) -> set[Unit]:
    """Units that include does not admit or exclude names, and what these would go along with.

    Raises InputError for a pattern that matches nothing.
    """
    scope = options.scope
    places = {(g.name, u): path for g in groups for u, path in enumerate(g.places)}

    def matched(patterns: Any, where: str) -> set[Unit]:
        hits = _units_by_pattern(structure, groups, patterns)
        for pattern, units in hits.items():
            if not units:
                known = ", ".join(list(places.values())[:6])
                raise InputError(f"{pattern!r} matches no block", where=where, hint=f"blocks: {known}")
        return set().union(*hits.values())

    stay = matched(scope.exclude, "exclude") if scope.exclude is not None else set()
    stay |= {unit for unit in places if stay & cover.inside.get(unit, frozenset())}
    if scope.include is not None:
        stay |= places.keys() - matched(scope.include, "include")
    return stay


def admitted(structure: Structure, groups: Sequence[Group], scope: Scope) -> tuple[Group, ...]:
    """The groups of which include and exclude leave something to go: a ratio is a share of these."""
    stay: set[Unit] = set().union(*_units_by_pattern(structure, groups, scope.exclude or ()).values())
    units = {(group.name, unit) for group in groups for unit in range(len(group.places))}
    if scope.include is not None:
        stay |= units - set().union(*_units_by_pattern(structure, groups, scope.include).values())
    return tuple(g for g in groups if any((g.name, unit) not in stay for unit in range(len(g.places))))


def _units_by_pattern(structure: Structure, groups: Sequence[Group], patterns: Any) -> dict[str, set[Unit]]:
    """By pattern the units that it names."""
    names = {(g.name, u): _named_by(path, g, u, structure) for g in groups for u, path in enumerate(g.places)}
    each = [patterns] if isinstance(patterns, str) else list(patterns)
    return {p: {unit for unit, own in names.items() if any(fnmatchcase(name, p) for name in own)} for p in each}


def _named_by(path: str, group: Group, unit: int, structure: Structure) -> set[str]:
    """The unit, its group and role, what it is in, and what is in it."""
    inside = [each.module for each in group.branches[unit].modules] if group.branches else [path]
    above = {".".join(parts[:end]) for parts in [path.split(".")] for end in range(1, len(parts) + 1)}
    tensors = {name for name in structure.trace.state if is_inside(name, inside)}
    return above | set(inside) | tensors | {str(group.role), group.name}


def most_of(groups: Sequence[Group], structure: Structure, options: Options) -> dict[str, int]:
    """How many units of each group are taken at most: of those that may go, where a ratio says something of them."""
    shares = ratios(groups, narrowed(options.scope.share, groups)) if options.scope.target is None else {}
    most = caps_of(groups, structure, options)
    return {name: 0 if shares and shares[name] is None else count for name, count in most.items()}


def caps_of(groups: Sequence[Group], structure: Structure, options: Options) -> dict[str, int]:
    """How many units of each group may go: one entry stays in every container, and what ``max_ratio`` says."""
    caps = {} if options.scope.max_ratio is None else ratios(groups, narrowed(options.scope.max_ratio, groups) or {})
    found = {}
    for group in groups:
        entries = group.size if group.branches else len(structure.trace.containers[group.block]) - 1
        entries = min(entries, group.size - group.least) if group.routes else entries
        cap = caps.get(group.name)
        found[group.name] = min(group.size, entries, group.size if cap is None else math.floor(cap * group.size))
    return found


def least_of(groups: Sequence[Group], options: Options) -> dict[str, int]:
    """How many units of each group go at least, as ``min_ratio`` says."""
    shares = {} if options.scope.min_ratio is None else ratios(groups, narrowed(options.scope.min_ratio, groups) or {})
    return {g.name: math.ceil(share * g.size) for g in groups if (share := shares.get(g.name))}


def too_few(name: str, count: int, refused: Sequence[Frozen]) -> SelectionError:
    """What says that fewer can go than ``min_ratio`` asks for."""
    stay = [f"{frozen.name}: {frozen.reason}" for frozen in refused]
    return SelectionError(
        f"{count} of {name} should go at least, and so many cannot" + "".join(f"\n    {line}" for line in stay),
        where="min_ratio",
        hint="lower min_ratio for it, or raise max_ratio",
    )


def check_enough_are_left(pool: Sequence[Group], share: float | Fraction) -> None:
    """Raises SelectionError where a share of experts alone leaves fewer than forward chooses among."""
    if not pool or not all(group.routes for group in pool):
        return
    size, may_go = sum(group.size for group in pool), sum(group.size - group.least for group in pool)
    if float(share) * size > may_go + 0.5:
        raise SelectionError(
            f"so many experts are chosen for a token that {may_go} of {size} may go at most",
            where=f"ratio={float(share):g}",
            hint=f"a ratio of {may_go / size:.4g} at most",
        )
