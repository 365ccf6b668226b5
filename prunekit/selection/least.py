"""Widths from which forward chooses: what is asked for must leave as many as it chooses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from prunekit.coupling.groups import Group
from prunekit.errors import SelectionError
from prunekit.options import Scope
from prunekit.selection.ranking import Allocation
from prunekit.selection.ratio import most_specific, nearest, widths


def refuse_too_few(groups: Sequence[Group], allocations: Sequence[Allocation], scope: Scope) -> None:
    """Refuses a ratio that names a group, by its role or by name, and leaves less of it than forward chooses among.

    A group that is reached with all others keeps as many as forward chooses.

    Raises:
        SelectionError: fewer experts than top_k, for example; says the largest ratio.
    """
    by_name = {group.name: group for group in groups}
    for allocation in allocations:
        for name, multiple in zip(allocation.groups, allocation.multiples, strict=True):
            group = by_name[name]
            if group.least <= 1:
                continue
            width = multiple * nearest(widths(allocation.size, allocation.step), allocation.target, "nearest")
            if width < group.least and _is_named(group, scope):
                most = math.floor(1000 * (1 - group.least / group.size)) / 1000
                raise SelectionError(
                    f"{width} of {group.size} units ({group.role}) would be left, and forward chooses {group.least}",
                    where=name,
                    hint=f"remove at most {most:g} of them, or lower the number that the model chooses",
                )


def _is_named(group: Group, scope: Scope) -> bool:
    if isinstance(scope.ratio, Mapping):
        return most_specific(scope.ratio, group) not in (None, "*")
    return scope.roles is not None or scope.include is not None
