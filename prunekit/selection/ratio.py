"""How much goes: a ratio per group, and the widths that alignment allows."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import TypeVar, cast

from prunekit.coupling.groups import Group
from prunekit.errors import InputError
from prunekit.options.shares import exact_ratio
from prunekit.options.types import Align, Ratio, Rounding

T = TypeVar("T")

_WILD = "*?["
DEFAULT_STEP = 8
ALIGNED_FROM = 64


def ratios(groups: Sequence[Group], ratio: Ratio) -> dict[str, Fraction | None]:
    """Share to remove for each group name; None where a mapping says nothing about the group.

    Keys of a mapping are a group name, a role, a glob over both, or a module's path; the most specific one counts.
    Raises InputError where a ratio is outside [0, 1) or a key matches nothing.
    """
    if not isinstance(ratio, Mapping):
        share = exact_ratio(ratio)
        return {group.name: share for group in groups}
    shares = {key: exact_ratio(value, f"ratio[{key!r}]") for key, value in ratio.items()}
    check_keys(shares, groups, "ratio")
    return {group.name: pick(shares, group) for group in groups}


def steps(groups: Sequence[Group], align: Align) -> dict[str, int]:
    """Alignment step for each group name: widths are multiples of it.

    By default 8 from 64 units on and 1 below; a number applies to every group. Attention heads are counted, not
    aligned, and within-head widths are only aligned on demand. A mapping of roles, names or globs decides where it
    says something, and the default elsewhere. Raises InputError on a step below 1 or a key that matches nothing.
    """
    if isinstance(align, str):
        raise InputError(
            f"align={align!r} is not known where units are selected",
            where="align",
            hint="pass a whole number, or a mapping of roles to such",
        )
    values = align.values() if isinstance(align, Mapping) else [] if align is None else [align]
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{value!r} is not an alignment", where="align", hint="pass a whole number >= 1")
    if isinstance(align, Mapping):
        check_keys(align, groups, "align")
        return {group.name: pick(align, group) or default_step(group) for group in groups}
    if align is None:
        return {group.name: default_step(group) for group in groups}
    return {group.name: 1 if group.role.counted else align for group in groups}


def block_sizes(groups: Sequence[Group], granularity: int | Mapping[str, int] | None) -> dict[str, int]:
    """How many neighbouring units of each group name are kept or removed together: a divisor of its size.

    Raises InputError on a key that matches nothing.
    """
    if isinstance(granularity, Mapping):
        check_keys(granularity, groups, "granularity")
        return {group.name: math.gcd(pick(granularity, group) or 1, group.size) for group in groups}
    return {group.name: math.gcd(granularity or 1, group.size) for group in groups}


def default_step(group: Group) -> int:
    """8 from 64 units on, 1 below and inside attention."""
    return DEFAULT_STEP if group.size >= ALIGNED_FROM and group.role.default_step else 1


def pick(settings: Mapping[str, T], group: Group) -> T | None:
    """The setting for a group, by the most specific key that matches it, whatever the order; None without any."""
    key = most_specific(settings, group)
    return None if key is None else settings[key]


def most_specific(keys: Iterable[str], group: Group) -> str | None:
    """Of the keys that match a group: its name, else its role, else the one with the most letters that are no
    wildcards, else the first."""
    return max((key for key in keys if matches(key, group)), key=lambda key: _specificity(key, group), default=None)


def _specificity(key: str, group: Group) -> tuple[bool, bool, int, int]:
    wild = sum(key.count(mark) for mark in _WILD)
    return (key == group.name, key == group.role, len(key) - wild, -wild)


def matches(pattern: str, group: Group) -> bool:
    """Whether a pattern matches a group: a glob over its name or role, or the path of a module that its name is in."""
    if fnmatchcase(group.name, pattern) or fnmatchcase(group.role, pattern):
        return True
    return not any(mark in pattern for mark in _WILD) and group.name.startswith(f"{pattern}.")


def check_keys(settings: Mapping[str, object], groups: Sequence[Group], what: str) -> None:
    """Raise InputError where a key matches no group; the message lists the roles."""
    for key in settings:
        if not any(key in (group.name, group.role) or matches(key, group) for group in groups):
            known = ", ".join(sorted({group.role for group in groups}))
            raise InputError(f"{key!r} matches no group", where=what, hint=f"known roles: {known}")


def narrowed(settings: T, groups: Sequence[Group]) -> T:
    """A mapping less the keys that match none of ``groups``; anything else as it is."""
    if not isinstance(settings, Mapping):
        return settings
    return cast(T, {k: v for k, v in settings.items() if any(k in (g.name, g.role) or matches(k, g) for g in groups)})


def bounds(groups: Sequence[Group], least: Ratio | None, most: Ratio | None) -> dict[str, tuple[Fraction, Fraction]]:
    """For each group name the least and the largest share to remove: (0, 1) where nothing is said.

    Raises InputError where a bound is outside [0, 1], a key matches nothing, or the least is more than the largest.
    """
    low = ratios(groups, least) if least is not None else {}
    high = ratios(groups, most) if most is not None else {}
    found = {}
    for group in groups:
        pair = (low.get(group.name) or Fraction(0), high.get(group.name))
        pair = (pair[0], Fraction(1) if pair[1] is None else pair[1])
        if pair[0] > pair[1]:
            raise InputError(
                f"at least {float(pair[0]):g} and at most {float(pair[1]):g} of {group.name} cannot both hold",
                where="min_ratio",
                hint="make min_ratio at most max_ratio",
            )
        found[group.name] = pair
    return found


def widths(size: int, step: int) -> list[int]:
    """Widths that a group may take, ascending: the multiples of ``step`` up to ``size``, and ``size`` itself."""
    found = list(range(step, size + 1, step))
    return found if found and found[-1] == size else [*found, size]


def nearest(allowed: Sequence[int], width: Fraction, rounding: Rounding) -> int:
    """Of ``allowed``, ascending, the width nearest to ``width`` (the larger of two), or the largest below; at least
    the smallest one."""
    if rounding == "down":
        return allowed[max(0, bisect_right(allowed, math.floor(width)) - 1)]
    above = bisect_left(allowed, width)
    if above in (0, len(allowed)):
        return allowed[min(above, len(allowed) - 1)]
    return allowed[above] if allowed[above] - width <= width - allowed[above - 1] else allowed[above - 1]
