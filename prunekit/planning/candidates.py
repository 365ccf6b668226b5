"""Which groups may go: those that the options reach, and an error that says why there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prunekit.coupling.groups import Frozen, Group
from prunekit.coupling.structure import Structure
from prunekit.errors import NothingToPruneError
from prunekit.options import Scope
from prunekit.planning.parting import scopes_of
from prunekit.planning.symmetry_check import Symmetry
from prunekit.selection import filter_groups
from prunekit.selection.ratio import most_specific


def choose(structure: Structure, scope: Scope | None = None) -> tuple[Group, ...]:
    """The groups that ``scope`` reaches; none where it asks for depth only.

    Of two groups that share coordinates (heads and positions within a head) only one is taken unless roles name both:
    the one that a key of the ratio names more closely, then by the preference of their roles, then the one with more
    units. A ratio that names both by role or by name takes both.
    """
    scope = scopes_of(scope or Scope())[1]
    if scope is None:
        return ()
    readers = structure.readers if scope.exclude else None
    found = filter_groups(structure.groups, scope.include, scope.exclude, scope.roles, readers)
    if scope.roles is not None:
        return found
    ranked = sorted(found, key=lambda g: (-_closeness(scope, g), g.role.preferred, -g.size))
    overlap = structure.overlaps()
    taken: set[str] = set()
    for g in ranked:
        if _closeness(scope, g) == _BY_NAME or not overlap.get(g.name, set()) & taken:
            taken.add(g.name)
    return tuple(g for g in found if g.name in taken)


_BY_NAME = 2


def _closeness(scope: Scope, group: Group) -> int:
    """How closely the ratio names a group: not at all or with all others, by a pattern, or by its role or name."""
    key = most_specific(scope.ratio, group) if isinstance(scope.ratio, Mapping) else None
    if key is None or key == "*":
        return 0
    return _BY_NAME if key in (group.name, group.role) else 1


def nothing_to_prune(
    structure: Structure, checked: Symmetry | None = None, refused: Sequence[Frozen] = ()
) -> NothingToPruneError:
    """An error that lists each frozen width with its reason."""
    rows = [*structure.frozen, *refused]
    lines = [f"{f.name} ({f.size}): {f.reason}" + (f" [{f.where}]" if f.where else "") for f in rows[:40]]
    if checked is not None and checked.broken:
        lines += [f"{name}: symmetry does not hold" for name in checked.broken]
    text = "nothing can be pruned:\n    " + "\n    ".join(lines or ["the model has no prunable width"])
    return NothingToPruneError(text, hint=_way_out(structure))


def _way_out(structure: Structure) -> str:
    if not structure.unknown:
        return "widen include"
    names = "".join(f"{name!r}, " for name in structure.unknown)
    entry = f"prunekit.operators.Operator(({names[:-1]}), rule)"
    return (
        f"say how it couples: structure=prunekit.trace(model, operators=[{entry}]), or Plugin(operators=...) for "
        "everyone; docs/operators.md shows a rule"
    )
