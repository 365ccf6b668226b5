"""Which groups may shrink: globs over what people see in the model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from prunekit.coupling.groups import Group
from prunekit.errors import InputError

Patterns = str | Iterable[str] | None
READ = ":in"  # of a layer: the width that it reads


def filter_groups(
    groups: Sequence[Group],
    include: Patterns = None,
    exclude: Patterns = None,
    roles: Patterns = None,
    readers: Mapping[str, Collection[str]] | None = None,
) -> tuple[Group, ...]:
    """The groups that roles and include admit and exclude does not name, in order.

    A pattern is a glob, case-sensitive, ``*`` crosses dots. It matches a group by its name, its role, a parameter or
    buffer that the group runs through, or the path of a module that holds one. None admits all; an exclusion wins.
    What a layer only reads is its neighbour's width: an exclusion keeps it where the pattern ends in ``:in``.

    Args:
        readers: for each group the tensors of layers that read it and do not write it.

    Raises InputError where a pattern matches nothing; the message gives the nearest names.
    """
    names = [names_of(group) for group in groups]
    role_names: list[set[str]] = [{group.role} for group in groups]
    admitted = _matched(include, names, "include")
    kept = [_kept_by(group, (readers or {}).get(group.name, ())) for group in groups]
    excluded = _matched(exclude, kept, "exclude", [own | more for own, more in zip(names, kept, strict=True)])
    in_role = _matched(roles, role_names, "roles")
    return tuple(
        group
        for i, group in enumerate(groups)
        if (admitted is None or i in admitted) and (in_role is None or i in in_role) and i not in (excluded or ())
    )


def names_of(group: Group) -> set[str]:
    """Everything that a pattern can name a group by."""
    return {group.name, group.role}.union(*(_upwards(member.tensor) for member in group.members))


def _kept_by(group: Group, readers: Collection[str]) -> set[str]:
    """What an exclusion can name a group by: the layers that write it, and those that read it with ``:in``."""
    found = {group.name, group.role}
    for member in group.members:
        reads = member.tensor in readers
        found |= {f"{path}{READ}" for path in _upwards(member.tensor)} if reads else set(_upwards(member.tensor))
    return found


def _upwards(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]


def _matched(
    patterns: Patterns, names: Sequence[set[str]], where: str, known: Sequence[set[str]] | None = None
) -> set[int] | None:
    """Which of ``names`` the patterns match. Raises InputError for one that matches none of the ``known`` either."""
    if patterns is None:
        return None
    found: set[int] = set()
    for pattern in [patterns] if isinstance(patterns, str) else list(patterns):
        hits = {i for i, own in enumerate(names) if any(fnmatchcase(name, pattern) for name in own)}
        if not hits and not any(fnmatchcase(name, pattern) for own in known or () for name in own):
            all_names = sorted(set().union(*(known or names)))
            near = get_close_matches(pattern, all_names, n=3, cutoff=0.4) or all_names[:8]
            raise InputError(f"{pattern!r} matches nothing", where=where, hint=f"near: {', '.join(near)}")
        found |= hits
    return found
