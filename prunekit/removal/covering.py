"""What goes along: a block takes the branches in it with it, and what went once is counted once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from prunekit.coupling.blocks import is_inside
from prunekit.coupling.groups import Group
from prunekit.coupling.structure import Structure

Unit = tuple[str, int]  # group name and unit

_COUNTED = ("params", "macs", "layer_macs", "memory")


@dataclass(frozen=True, eq=False)
class Cover:
    """For every unit of depth the units that lie wholly in it, and so go with it.

    ``most`` is how many units of each group may go, whichever way; ``saved`` what each unit spares, where blocks stand
    against branches and a score has to be held against it.
    """

    inside: Mapping[Unit, frozenset[Unit]]
    most: Mapping[str, int]
    saved: Mapping[Unit, float]

    @classmethod
    def of(cls, structure: Structure, groups: Sequence[Group], most: Mapping[str, int], quantity: str) -> Cover:
        """What lies in what. ``quantity`` is what the score of a unit is held against: parameters where it is none."""
        if not is_joint(groups):
            return cls({}, most, {})
        parts = {(g.name, u): _paths_of(g, u) for g in groups for u in range(g.size)}
        inside = {
            unit: frozenset(
                other for other, places in parts.items() if other != unit and all(is_inside(p, mine) for p in places)
            )
            for unit, mine in parts.items()
        }
        return cls(inside, most, _saved(structure, groups, quantity if quantity in _COUNTED else "params"))

    def closed(self, gone: Iterable[Unit]) -> list[Unit]:
        """``gone`` and all that goes with them, each once."""
        return list(dict.fromkeys(each for unit in gone for each in (unit, *sorted(self.inside.get(unit, ())))))

    def outermost(self, gone: Sequence[Unit]) -> list[Unit]:
        """Of ``gone`` what is in no other of them; of two that are in one another the earlier one."""
        found: list[Unit] = []
        for at, unit in enumerate(gone):
            around = [n for n, other in enumerate(gone) if unit in self.inside.get(other, ())]
            if all(gone[n] in self.inside.get(unit, ()) and n > at for n in around):
                found.append(unit)
        return found

    def admits(self, unit: Unit, closed: Collection[Unit]) -> bool:
        """Whether ``unit`` may go beside ``closed``: no group would lose more than it may with what goes along."""
        more = self.inside.get(unit, frozenset()) - set(closed)
        counts = {name: sum(at == name for at, _ in more) for name, _ in more}
        return all(sum(at == name for at, _ in closed) + count <= self.most[name] for name, count in counts.items())


def is_joint(groups: Sequence[Group]) -> bool:
    """Whether blocks, branches and experts stand beside one another."""
    return len({(bool(group.branches), bool(group.routes)) for group in groups}) > 1


def _paths_of(group: Group, unit: int) -> list[str]:
    return [each.module for each in group.branches[unit].modules] if group.branches else [group.places[unit]]


def _saved(structure: Structure, groups: Sequence[Group], quantity: str) -> dict[Unit, float]:
    """What goes of a quantity with each unit alone."""
    owner = {(g.name, u): _paths_of(g, u) for g in groups for u in range(g.size)}
    terms = [term for term in structure.terms if quantity in term.counts]
    return {
        unit: float(sum(term.value({}) for term in terms if is_inside(term.module, places)))
        for unit, places in owner.items()
    }
