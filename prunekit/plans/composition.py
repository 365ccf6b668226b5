"""Two plans applied in turn, as one plan on the original model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from prunekit.coupling.groups import Absence
from prunekit.errors import PlanError, expect
from prunekit.modules.absent import MAP, SIZES
from prunekit.plans.contents import Cut, Edit, Fold, Plan, Removal, Shortening, Width
from prunekit.plans.renaming import Renaming


def compose(first: Plan, second: Plan) -> Plan:
    """The plan that does to the original model what ``first`` and then ``second`` do.

    ``second`` was made for the model that ``first`` leaves. Raises PlanError where the two do not meet, InputError for
    what is no plan.
    """
    for name, plan in (("first", first), ("second", second)):
        expect(name, plan, "what prunekit.plan gave, or Plan.from_json", fits=isinstance(plan, Plan))
    second = _named_as_before(second, Renaming(first.removals)) if first.removals else second
    maps = {f"{absence.module}.{MAP}" for absence in first.absences if absence.has_map}
    return Plan(
        fingerprint=first.fingerprint,
        widths=tuple(_widths(first.widths, second.widths)),
        cuts=tuple(_cuts(first.cuts, tuple(c for c in second.cuts if c.tensor.rpartition(".")[0] not in maps))),
        edits=tuple(
            _edits(first.edits, tuple(e for e in second.edits if e.attribute != SIZES and e.module not in maps))
        ),
        folds=tuple(_folds(first.folds, second)),
        frozen=first.frozen,
        removals=tuple(_removals(first.removals, second.removals)),
        shortenings=tuple(_shortenings(first.shortenings, second.shortenings)),
        absences=(*_resized(first.absences, second), *second.absences),
        tables=tuple(dict.fromkeys((*first.tables, *second.tables))),
    )


def _named_as_before(plan: Plan, names: Renaming) -> Plan:
    """A plan for what is left when blocks are gone, in the names of the original."""
    return replace(
        plan,
        widths=tuple(replace(w, group=names.was(w.group)) for w in plan.widths),
        cuts=tuple(replace(c, tensor=names.was(c.tensor)) for c in plan.cuts),
        edits=tuple(replace(e, module=names.was(e.module)) for e in plan.edits),
        folds=tuple(replace(f, tensor=names.was(f.tensor)) for f in plan.folds),
        removals=tuple(replace(r, container=names.was(r.container)) for r in plan.removals),
        shortenings=tuple(replace(s, module=names.was(s.module)) for s in plan.shortenings),
        absences=tuple(replace(a, module=names.was(a.module)) for a in plan.absences),
        tables=tuple(names.was(name) for name in plan.tables),
    )


def _resized(absences: tuple[Absence, ...], later: Plan) -> Iterator[Absence]:
    """Modules that stand for nothing are made as wide as what is around them became later."""
    for absence in absences:
        leaves, kept = list(absence.leaves), absence.kept
        for cut in later.cuts:
            if cut.tensor == f"{absence.module}.{MAP}.bias":
                leaves[0] = f"{leaves[0].rpartition('=')[0]}={len(cut.kept)}"
                kept = _chain(cut.tensor, kept or tuple(range(cut.size)), cut.size, cut.kept)
        for edit in later.edits:
            if edit.module == absence.module and edit.attribute == SIZES and edit.index is not None:
                leaves[edit.index] = f"{leaves[edit.index].rpartition('=')[0]}={int(edit.after)}"
        yield replace(absence, leaves=tuple(leaves), kept=kept)


def _removals(first: tuple[Removal, ...], second: tuple[Removal, ...]) -> Iterator[Removal]:
    later = {removal.container: removal for removal in second}
    for removal in first:
        again = later.pop(removal.container, None)
        name = f"the entries of {removal.container or 'the model'}"
        kept = removal.kept if again is None else _chain(name, removal.kept, len(again.names), again.kept)
        yield replace(removal, kept=kept)
    yield from later.values()


def _shortenings(first: tuple[Shortening, ...], second: tuple[Shortening, ...]) -> Iterator[Shortening]:
    later = {(short.module, short.attribute): short for short in second}
    for short in first:
        again = later.pop((short.module, short.attribute), None)
        name = f"{short.module}.{short.attribute}"
        yield short if again is None else replace(short, kept=_chain(name, short.kept, again.size, again.kept))
    yield from later.values()


def _chain(name: str, outer: tuple[int, ...], size: int, inner: tuple[int, ...]) -> tuple[int, ...]:
    """``inner`` picks from what ``outer`` left: the picks in the original's numbering."""
    if size != len(outer):
        raise PlanError(
            f"the second plan expects {size} of {name}, the first leaves {len(outer)}",
            hint="make the second plan for the model that the first one leaves",
        )
    return tuple(outer[index] for index in inner)


def _widths(first: tuple[Width, ...], second: tuple[Width, ...]) -> Iterator[Width]:
    later = {width.group: width for width in second}
    for width in first:
        again = later.pop(width.group, None)
        # A first cut can change what a unit is (of a convolution with one group left, single channels); a unit of the
        # original that is still there in part counts as kept then, and the cuts alone say which part.
        same = again is not None and again.before == len(width.kept)
        kept = tuple(width.kept[index] for index in again.kept) if again and same else width.kept
        yield Width(width.group, width.role, width.before, kept)
    yield from later.values()


def _cuts(first: tuple[Cut, ...], second: tuple[Cut, ...]) -> Iterator[Cut]:
    later = {(cut.tensor, cut.axis): cut for cut in second}
    for cut in first:
        again = later.pop((cut.tensor, cut.axis), None)
        name = f"axis {cut.axis} of {cut.tensor}"
        kept = cut.kept if again is None else _chain(name, cut.kept, again.size, again.kept)
        yield Cut(cut.tensor, cut.axis, cut.size, kept)
    yield from later.values()


def _edits(first: tuple[Edit, ...], second: tuple[Edit, ...]) -> Iterator[Edit]:
    later = {(edit.module, edit.attribute, edit.index): edit for edit in second}
    for edit in first:
        again = later.pop((edit.module, edit.attribute, edit.index), None)
        if again is None:
            yield edit
            continue
        if again.before != edit.after:
            raise PlanError(
                f"the second plan expects {edit.module}.{edit.attribute} = {again.before}, "
                f"the first leaves {edit.after}",
                hint="make the second plan for the model that the first one leaves",
            )
        yield Edit(edit.module, edit.attribute, edit.index, edit.before, again.after)
    yield from later.values()


def _folds(first: tuple[Fold, ...], second: Plan) -> Iterator[Fold]:
    """Folds multiply; rows that the second plan removes drop out, the others are renumbered after its cuts."""
    moved = {(cut.tensor, cut.axis): {old: new for new, old in enumerate(cut.kept)} for cut in second.cuts}
    factors: dict[tuple[str, int], dict[int, float]] = {}

    def multiply(tensor: str, axis: int, rows: Iterable[int], factor: float) -> None:
        of_axis = factors.setdefault((tensor, axis), {})
        for row in rows:
            of_axis[row] = of_axis.get(row, 1.0) * factor

    for fold in first:
        new = moved.get((fold.tensor, fold.axis))
        rows = fold.rows if new is None else tuple(new[row] for row in fold.rows if row in new)
        multiply(fold.tensor, fold.axis, rows, fold.factor)
    for fold in second.folds:
        multiply(fold.tensor, fold.axis, fold.rows, fold.factor)
    for (tensor, axis), of_axis in factors.items():
        for factor in dict.fromkeys(of_axis.values()):
            yield Fold(tensor, axis, tuple(sorted(row for row, f in of_axis.items() if f == factor)), factor)
