"""Whether any numbers of a configuration can give these sizes, seen from what each number alone does to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import log

from prunekit.plugins import Place


def contradicted(
    original: Mapping[Place, int], wanted: Mapping[Place, int], moved: Iterable[Mapping[Place, int]]
) -> bool:
    """Whether no factors of the entries give the sizes ``wanted``, but for what rounding may do.

    ``moved`` are for each entry the sizes that twice its number gives, or half of it. A size that is twice or half as
    large then is proportional to the entry; one that changes otherwise, as a sum of two widths, says nothing here.
    """
    sizes = list(moved)
    asked: dict[tuple[frozenset[int], int, int], None] = {}
    for place, before in original.items():
        after = wanted.get(place)
        if not before or not after:
            continue
        changes = {n: Fraction(to, before) for n, each in enumerate(sizes) if (to := each.get(place, before)) != before}
        if all(change in (2, Fraction(1, 2)) for change in changes.values()):
            asked[frozenset(changes), before, after] = None
    return _infeasible(len(sizes), asked)


def _infeasible(count: int, asked: Iterable[tuple[frozenset[int], int, int]]) -> bool:
    """A linear program over logarithms: a size's change is the product of its entries' factors."""
    from scipy.optimize import linprog

    rows, most = list[list[float]](), list[float]()
    for entries, before, after in asked:
        row = [float(n in entries) for n in range(count)]
        slack = 1 / before + 1 / after  # both may have been rounded
        rows += [row, [-x for x in row]]
        most += [log(after / before) + slack, log(before / after) + slack]
    if not rows:
        return False
    if not count:
        return min(most) < 0
    return bool(linprog([0.0] * count, A_ub=rows, b_ub=most, bounds=(None, None)).status == 2)
