"""Attributes that size several axes at once: those axes must keep equal counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunekit.coupling.assembly import Assembly
from prunekit.coupling.coupler import Coupler
from prunekit.coupling.fates import Fates, resolve
from prunekit.coupling.groups import Tie
from prunekit.graph.provenance import render
from prunekit.labels.labelling import Equation
from prunekit.labels.vectors import Vector


@dataclass(frozen=True, eq=False)
class SharedSizes:
    """For each attribute that is a size by itself: the equations in which it is."""

    by_attribute: dict[tuple[object, ...], list[Equation]]

    def settle(self, coupler: Coupler, fates: Fates) -> Fates:
        """Freezes what shares an attribute with a fixed axis, until nothing changes."""
        while True:
            changed = False
            for attribute, equations in self.by_attribute.items():
                held = [e for e in equations if _fixed(e, fates)]
                if not held:
                    continue
                for e in equations:
                    if e.axis is not None and not _fixed(e, fates):
                        reason = f"{render(attribute)} also sizes a width that cannot shrink"
                        coupler.labels.freeze(e.axis, reason, held[0].where)
                        changed = True
            if not changed:
                return fates
            fates = resolve(coupler.labels)

    def named(self, fates: Fates, assembly: Assembly) -> tuple[Tie, ...]:
        ties: dict[tuple[str, ...], Tie] = {}
        for attribute, equations in self.by_attribute.items():
            each = [_groups(fates.fate[e.axis], fates, assembly) for e in equations if e.axis is not None]
            indices = set().union(*each)
            # An axis that several groups share has no count of its own to tie, and groups whose units take different
            # shares of the axis (pairs here, single positions there) have no common count; both are solved as a whole.
            sizes = {assembly.groups[i].size for i in indices}
            if len(indices) > 1 and len(sizes) == 1 and all(len(found) == 1 for found in each):
                names = tuple(assembly.groups[i].name for i in sorted(indices))
                ties.setdefault(names, Tie(names, f"{render(attribute)} is the size of each"))
        return tuple(ties.values())


def _fixed(equation: Equation, fates: Fates) -> bool:
    return equation.axis is None or bool(fates.frozen[fates.fate[equation.axis]].all())


def _groups(classes: Vector, fates: Fates, assembly: Assembly) -> set[int]:
    units = np.unique(fates.owners[classes])
    return {int(g) for g in np.unique(assembly.group_of[units[units >= 0]]) if g >= 0}


def find_ties(coupler: Coupler, fates: Fates) -> SharedSizes:
    """Attributes that are by themselves the size of more than one axis, or of a fixed one."""
    found: dict[tuple[object, ...], list[Equation]] = {}
    for e in coupler.equations:
        if e.expression[0] == "attribute":
            found.setdefault(e.expression, []).append(e)
    return SharedSizes({a: es for a, es in found.items() if len(es) > 1 or es[0].axis is None})
