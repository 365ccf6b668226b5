"""Keeps the function where an operator's own constant depends on a width, such as 1/sqrt(head_dim) in attention.

The rehearsal shows which constants changed. Where the changed factor multiplies something that a linear layer, or
the affine part of a norm, has just written, the inverse factor is folded into those parameters. Where that is read
elsewhere too, as queries that also meet a relative position, the other side of the product takes the factor: the keys.
What neither side can take is reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from prunekit.coupling.structure import Structure
from prunekit.graph.nodes import Ref, Trace
from prunekit.operators import Scales
from prunekit.planning.rehearsal import changed_scalars
from prunekit.planning.scaling import Rows, Scaling
from prunekit.plans.contents import Fold, Plan


@dataclass(frozen=True)
class Note:
    """A constant that changes with a width and could not be compensated."""

    where: str
    before: float
    after: float


def with_folds(plan: Plan, structure: Structure, rehearsal: Trace) -> tuple[Plan, tuple[Note, ...]]:
    """``plan`` with the folds that undo changed constants, and notes about those that it cannot undo."""
    search = Scaling(structure.trace, structure.coupler.dependent, structure.coupler.table)
    kept = {(c.tensor, c.axis): c.kept for c in plan.cuts}
    changes: list[_Change] = []
    notes = []
    for op, before, after in changed_scalars(structure.trace, rehearsal):
        kind = search.kind(op)
        base = op.args[0] if op.args and isinstance(op.args[0], Ref) else None
        # mul(x, s) -> mul(x, s'): what wrote x gains s / s'; for a division it is the other way round.
        factor = before / after if kind is Scales.PRODUCT else after / before if kind is Scales.QUOTIENT else 0.0
        found = search.writers(base, op) if base is not None and factor > 0 else None
        if found is None and base is not None and factor > 0 and (other := search.partner(op)) is not None:
            found = search.writers(*other)
        note = Note(op.where, before, after)
        if found is None:
            notes.append(note)
        else:
            changes.append(_Change(factor, found, (note,)))
    changes = _merged(changes)
    while clashing := _clashing(changes, search):  # a change is undone as a whole or not at all
        notes += [note for c in clashing for note in c.notes]
        changes = [c for c in changes if c not in clashing]
    factors = {(t, 0, row): c.factor for c in changes for t, (_, rows) in c.writers.items() for row in rows}
    return replace(plan, folds=tuple(_as_folds(factors, kept))), tuple(dict.fromkeys(notes))


@dataclass(frozen=True, eq=False)
class _Change:
    """Constants that changed: the factor that undoes them, and the parameter rows to multiply."""

    factor: float
    writers: Rows
    notes: tuple[Note, ...]


def _merged(changes: list[_Change]) -> list[_Change]:
    """Changes that the same rows undo in the same call, as one."""
    found: dict[frozenset[tuple[str, tuple[int, frozenset[int]]]], _Change] = {}
    for change in changes:
        key = frozenset(change.writers.items())
        before = found.get(key)
        found[key] = (
            change
            if before is None
            else _Change(before.factor * change.factor, change.writers, before.notes + change.notes)
        )
    return list(found.values())


def _clashing(changes: list[_Change], search: Scaling) -> list[_Change]:
    """Changes whose rows others scale otherwise, or of layers that are called where nothing changed.

    A layer that is called several times is scaled once, if all its calls ask for the same.
    """
    found: dict[int, _Change] = {}
    for tensor in {t for c in changes for t in c.writers}:
        on_tensor = [c for c in changes if tensor in c.writers]
        for change in on_tensor:
            rows = change.writers[tensor][1]
            same = [c for c in on_tensor if c.writers[tensor][1] & rows]
            calls = {c.writers[tensor][0] for c in same}
            alike = {(c.factor, c.writers[tensor][1]) for c in same}
            if len(alike) > 1 or len(calls) != search.uses(tensor):
                found.update({id(c): c for c in same})
    return list(found.values())


def _as_folds(
    factors: dict[tuple[str, int, int], float], kept: dict[tuple[str, int], tuple[int, ...]]
) -> Iterable[Fold]:
    grouped: dict[tuple[str, int, float], list[int]] = {}
    for (tensor, axis, row), factor in factors.items():
        grouped.setdefault((tensor, axis, factor), []).append(row)
    for (tensor, axis, factor), rows in grouped.items():
        alive = kept.get((tensor, axis))
        if alive is None:
            after = tuple(sorted(rows))
        else:
            place = {old: new for new, old in enumerate(alive)}
            after = tuple(sorted(place[r] for r in rows if r in place))
        if after and abs(factor - 1.0) > 1e-12:
            yield Fold(tensor, axis, after, factor)
