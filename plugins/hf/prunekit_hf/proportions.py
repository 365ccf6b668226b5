"""The numbers of a configuration that give these sizes, from what each number alone does to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import exp, log

from prunekit.plugins import Place

_RESIDUE = 1000.0  # that a size is met is worth this much more than that a number stays as it is


def factors(
    original: Mapping[Place, int], wanted: Mapping[Place, int], moved: Sequence[Mapping[Place, int]]
) -> list[float | None] | None:
    """By what each entry changes where all sizes of ``original`` become those of ``wanted``, as few of them as can.

    ``moved`` are for each entry the sizes that twice its number gives, or half of it. A size that is twice or half as
    large then is proportional to the entry; one that changes otherwise, as a sum of two widths, says nothing here. An
    entry that nothing is said of is None. None for all where there are no such factors, but for what rounding may do.
    """
    asked: dict[tuple[frozenset[int], int, int], None] = {}
    for place, before in original.items():
        after = wanted.get(place)
        if not before or not after:
            continue
        changes = {n: Fraction(to, before) for n, each in enumerate(moved) if (to := each.get(place, before)) != before}
        if all(change in (2, Fraction(1, 2)) for change in changes.values()):
            asked[frozenset(changes), before, after] = None
    told = sorted(frozenset().union(*(entries for entries, _, _ in asked)))
    solved = _changes(told, list(asked))
    if solved is None:
        return None
    return [exp(solved[told.index(n)]) if n in told else None for n in range(len(moved))]


def _changes(told: list[int], asked: list[tuple[frozenset[int], int, int]]) -> list[float] | None:
    """A linear program over logarithms: a size's change is the product of its entries' factors.

    Its unknowns are the entries' changes, as two parts of one sign each, and the rows' residues likewise.
    """
    from scipy.optimize import linprog

    if not asked:
        return [0.0] * len(told)
    count, rows = len(told), len(asked)
    equal, sums, most = list[list[float]](), list[float](), list[float]()
    for row, (entries, before, after) in enumerate(asked):
        change = [float(n in entries) for n in told]
        residue = [float(row == other) for other in range(rows)]
        equal.append([*change, *(-x for x in change), *residue, *(-x for x in residue)])
        sums.append(log(after / before))
        most.append(1 / before + 1 / after)  # both may have been rounded
    bounds = [(0.0, None)] * (2 * count) + [(0.0, x) for x in (*most, *most)]
    cost = [1.0] * (2 * count) + [_RESIDUE] * (2 * rows)
    found = linprog(cost, A_eq=equal, b_eq=sums, bounds=bounds)
    if found.status != 0:
        return None
    return [float(found.x[n] - found.x[count + n]) for n in range(count)]
