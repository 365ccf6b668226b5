"""From kept units to a plan: cuts, attribute edits and folds, all solved and rehearsed before anything is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from prunekit.coupling.lengths import Lengths
from prunekit.coupling.structure import Structure
from prunekit.errors import PlanError
from prunekit.graph.provenance import Expression, leaves, render, value_of
from prunekit.labels.labelling import Equation
from prunekit.planning.shown_sizes import displayed
from prunekit.plans.contents import Cut, Edit, Plan, Width, fingerprint
from prunekit.tracing.standin import AttributeKey


def make_plan(model: nn.Module, structure: Structure, kept: Mapping[str, Tensor]) -> Plan:
    """The plan that keeps the given units of each named group.

    Args:
        kept: group name -> units that survive, ascending int64; groups that are not named stay whole.

    Raises:
        PlanError: if an attribute of the model would have to hold two values at once, or none fits.
    """
    lengths = structure.lengths(kept)
    edits = solve_attributes(structure, lengths)
    cuts = _cuts_of(structure, lengths)
    widths = tuple(
        Width(g.name, g.role, g.size, tuple(kept[g.name].tolist()))
        for g in structure.groups
        if g.name in kept and len(kept[g.name]) < g.size
    )
    edits += displayed(model, structure, lengths, cuts, edits)
    return Plan(fingerprint(model), widths, tuple(cuts), tuple(edits), (), structure.frozen, tables=structure.tables)


def _cuts_of(structure: Structure, lengths: Lengths) -> list[Cut]:
    found = []
    units: dict[int, tuple[int, ...]] = {}  # what many tensors share, such as an embedding, is written once
    for name, ref in structure.trace.state.items():
        for k, axis in enumerate(structure.coupler.of(ref)):
            if axis is None or lengths.of(axis, axis.size) == axis.size:
                continue
            mask = lengths.survivors(axis)
            assert mask is not None
            if not mask.any():
                raise PlanError(f"nothing of {name} would be left on axis {k}", hint="lower the ratio")
            left = units.setdefault(id(mask), ()) or tuple(np.nonzero(mask)[0].tolist())
            units[id(mask)] = left
            found.append(Cut(name, k, int(mask.size), left))
    return found


def solve_attributes(structure: Structure, lengths: Lengths) -> list[Edit]:
    """New values of the int attributes that size arguments read, so that every argument equals its predicted size."""
    values, wrong = solved(structure, lengths, structure.equations)
    if wrong:
        e = wrong[0]
        raise PlanError(
            f"{render(e.expression)} cannot become {lengths.of(e.axis, e.size)}",
            where=e.where,
            hint="choose widths that keep this size argument true, or exclude the group",
        )
    known = structure.trace.attributes
    return [Edit(m, a, i, known[m, a, i], v) for (m, a, i), v in values.items() if v != known[m, a, i]]


def solved(
    structure: Structure, lengths: Lengths, equations: Sequence[Equation]
) -> tuple[dict[AttributeKey, int], list[Equation]]:
    """Attribute values from the equations that name one alone, then by search; and the equations that still fail."""
    known = structure.trace.attributes
    values: dict[AttributeKey, int] = {}
    sizes = structure.trace.sizes

    def leaf(expression: Expression) -> int:
        if expression[0] == "attribute":
            key: AttributeKey = (expression[1], expression[2], expression[3])
            return values.get(key, known[key])
        axes = structure.coupler.axes.get(expression[1])  # constants have none: they are fixed
        return lengths.of(None if axes is None else axes[expression[2]], sizes[expression[1]][expression[2]])

    targets = [(e, lengths.of(e.axis, e.size)) for e in equations]
    for e, target in targets:
        if e.expression[0] == "attribute":
            values.setdefault((e.expression[1], e.expression[2], e.expression[3]), target)
    for e, target in targets:
        if not _holds(e, leaf, target):
            _search(e, target, values, known, leaf)
    return values, [e for e, target in targets if not _holds(e, leaf, target)]


def _holds(e: Equation, leaf: object, target: int) -> bool:
    try:
        return value_of(e.expression, leaf) == target  # type: ignore[arg-type]
    except ZeroDivisionError:
        return False


def _search(
    e: Equation, target: int, values: dict[AttributeKey, int], known: Mapping[AttributeKey, int], leaf: object
) -> None:
    """One unsolved attribute inside an expression: the value nearest below its old one that makes it true."""
    free = {
        (x[1], x[2], x[3]) for x in leaves(e.expression) if x[0] == "attribute" and (x[1], x[2], x[3]) not in values
    }
    if len(free) != 1:
        return
    key = next(iter(free))
    for candidate in range(known[key], 0, -1):
        values[key] = candidate
        if _holds(e, leaf, target):
            return
    del values[key]
