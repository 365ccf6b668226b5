"""A target against a structure: which widths are the widest within it, and what stands in the way."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.coupling.structure import Structure
from prunekit.errors import BudgetError, SelectionError
from prunekit.planning.arithmetic import Arithmetic
from prunekit.planning.reconciling import reconcile
from prunekit.quantities.gauge import Allowance, Gauge
from prunekit.quantities.limits import Limit
from prunekit.selection import Conditions, select_within
from prunekit.selection.ranking import Allocation, best, counts_of

_ROUNDS = 12
_AHEAD = 12  # alignment steps that are looked ahead for a width that the model's own arithmetic accepts


def select_for_target(
    structure: Structure, chosen: Sequence[Group], scores: Mapping[str, Tensor], gauge: Gauge, conditions: Conditions
) -> dict[str, Tensor]:
    """The widest units within the limits: no single further alignment step fits. Nothing is rebuilt for it.

    Attainable that the model's own arithmetic joins are brought to agree first, and the rest of the budget is given out
    among widths that agree. Raises SelectionError where the narrowest widths are too much; it says what limits them.
    """
    if gauge.met(gauge.exactly({})):
        return {group.name: torch.arange(group.size, device="cpu") for group in chosen}
    aimed = dict(gauge.limits)
    for _ in range(_ROUNDS):
        takes = Allowance(gauge, aimed).takes
        kept, allocations = select_within(chosen, structure.ties, scores, takes, conditions)
        joined = reconcile(structure, chosen, kept, scores)
        usage = gauge.exactly(joined)
        if gauge.met(usage):
            agree = all(len(joined[name]) == len(units) for name, units in kept.items())
            return joined if agree else filled_up(structure, joined, allocations, scores, gauge)
        narrow = all(len(kept[name]) == a.allowed[0] * m for a in allocations for name, m in _names(a))
        if narrow:
            raise unreachable(structure, chosen, usage, gauge, joined)
        for name, most in gauge.limits.items():
            if usage[name] > most:
                aimed[name] *= min(most / usage[name], 0.999)
    raise SelectionError(
        "the widths that the model's own arithmetic joins do not come to rest within the target",
        where=", ".join(str(Limit(n, m)) for n, m in gauge.limits.items()),
        hint="exclude one of the roles, or give a ratio",
    )


def _names(a: Allocation) -> list[tuple[str, int]]:
    return list(zip(a.groups, a.multiples, strict=True))


def filled_up(
    structure: Structure,
    kept: Mapping[str, Tensor],
    allocations: Sequence[Allocation],
    scores: Mapping[str, Tensor],
    gauge: Gauge,
) -> dict[str, Tensor]:
    """``kept`` widened, one allocation at a time, while the limits and the model's own arithmetic allow it."""
    found = dict(kept)
    values = {name: units.detach().cpu().double() for name, units in scores.items()}
    allowance, arithmetic = Allowance(gauge), Arithmetic(structure, kept)
    allowance.usage({name: len(units) for name, units in found.items()})

    def widened(a: Allocation) -> bool:
        before = {name: found[name] for name in a.groups}
        wider = bisect_right(a.allowed, len(found[a.groups[0]]) // a.multiples[0])
        for width in a.allowed[wider : wider + _AHEAD]:
            counts = counts_of([a], [width])
            if not allowance.takes(counts):
                break
            units = {name: best(values[name], count) for name, count in counts.items()}
            arithmetic.keep(units)
            if not arithmetic.violated():
                found.update(units)
                return True
            arithmetic.keep(before)
            allowance.usage({name: len(units) for name, units in before.items()})
        return False

    waiting = list(allocations)
    while waiting:
        waiting = [a for a in waiting if widened(a)]
    return found


def unreachable(
    structure: Structure,
    chosen: Sequence[Group],
    usage: Mapping[str, float],
    gauge: Gauge,
    kept: Mapping[str, Tensor],
) -> BudgetError:
    """Says what the narrowest widths leave, and which widths stay; carries the set that comes nearest."""
    whole = gauge.exactly({})
    over = [name for name, most in gauge.limits.items() if usage[name] > most]
    parts = [
        f"{Limit(name, gauge.limits[name])}: the narrowest widths leave {usage[name]:.6g} of {whole[name]:.6g}"
        for name in over
    ]
    frozen = sorted(structure.frozen, key=lambda f: -f.size)[:3]
    names = {group.name for group in chosen}
    left_out = [group.name for group in structure.groups if group.name not in names]
    limits = [f"{f.name} ({f.size}) is frozen: {f.reason}" for f in frozen]
    if left_out:
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        limits.append(f"not chosen: {', '.join(left_out[:3])}{more}")
    limits.append(f"{len(chosen)} groups are at their least width")
    return BudgetError(
        "the target is out of reach: " + "; ".join(parts),
        where="; ".join(limits),
        hint="raise the limit, lower align or max_ratio, or include more roles",
        reached=usage,
        kept={name: tuple(units.tolist()) for name, units in kept.items()},
    )
