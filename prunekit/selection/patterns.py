"""Which groups may shrink: globs over what people see in the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from prunekit.coupling.groups import Group
from prunekit.errors import InputError

Patterns = str | Iterable[str] | None


def filter_groups(
    groups: Sequence[Group], include: Patterns = None, exclude: Patterns = None, roles: Patterns = None
) -> tuple[Group, ...]:
    """The groups that roles and include admit and exclude does not name, in order.

    A pattern is a glob, case-sensitive, ``*`` crosses dots. It matches a group by its name, its role, a parameter or
    buffer that the group runs through, or the path of a module that holds one. None admits all; an exclusion wins.

    Raises InputError where a pattern matches nothing; the message gives the nearest names.
    """
    names = [names_of(group) for group in groups]
    role_names: list[set[str]] = [{group.role} for group in groups]
    admitted = _matched(include, names, "include")
    excluded = _matched(exclude, names, "exclude")
    in_role = _matched(roles, role_names, "roles")
    return tuple(
        group
        for i, group in enumerate(groups)
        if (admitted is None or i in admitted) and (in_role is None or i in in_role) and i not in (excluded or ())
    )


def names_of(group: Group) -> set[str]:
    """Everything that a pattern can name a group by."""
    names = {group.name, group.role}
    for member in group.members:
        path = member.tensor
        while path:
            names.add(path)
            path = path.rpartition(".")[0]
    return names


def _matched(patterns: Patterns, names: Sequence[set[str]], where: str) -> set[int] | None:
    if patterns is None:
        return None
    found: set[int] = set()
    for pattern in [patterns] if isinstance(patterns, str) else list(patterns):
        hits = {i for i, own in enumerate(names) if any(fnmatchcase(name, pattern) for name in own)}
        if not hits:
            known = sorted(set().union(*names))
            near = get_close_matches(pattern, known, n=3, cutoff=0.4) or known[:8]
            raise InputError(f"{pattern!r} matches nothing", where=where, hint=f"near: {', '.join(near)}")
        found |= hits
    return found
