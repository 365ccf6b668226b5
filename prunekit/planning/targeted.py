"""A target against a structure: which widths are the widest within it, and what stands in the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.coupling.structure import Structure
from prunekit.errors import SelectionError
from prunekit.planning.reconciling import reconcile
from prunekit.planning.solving import violated
from prunekit.quantities.gauge import Gauge
from prunekit.quantities.limits import Limit
from prunekit.selection import Conditions, select_within
from prunekit.selection.ranking import Allocation, best, counts_of

_ROUNDS = 12
_AHEAD = 12  # alignment steps that are looked ahead for a width that the model's own arithmetic accepts


def select_for_target(
    structure: Structure, chosen: Sequence[Group], scores: Mapping[str, Tensor], gauge: Gauge, conditions: Conditions
) -> dict[str, Tensor]:
    """The widest units within the limits: no single further alignment step fits. Nothing is rebuilt for it.

    Widths that the model's own arithmetic joins are brought to agree first, and the rest of the budget is given out
    among widths that agree. Raises SelectionError where the narrowest widths are too much; it says what limits them.
    """
    if gauge.met(gauge.exactly({})):
        return {group.name: torch.arange(group.size) for group in chosen}
    aimed = dict(gauge.limits)
    for _ in range(_ROUNDS):

        def fits(counts: Mapping[str, int], aimed: Mapping[str, float] = aimed) -> bool:
            return gauge.met(gauge.usage(counts), aimed)

        kept, allocations = select_within(chosen, structure.ties, scores, fits, conditions)
        joined = reconcile(structure, chosen, kept, scores)
        usage = gauge.exactly(joined)
        if gauge.met(usage):
            agree = all(len(joined[name]) == len(units) for name, units in kept.items())
            return joined if agree else _filled_up(structure, joined, allocations, scores, gauge)
        narrow = all(len(kept[name]) == a.allowed[0] * m for a in allocations for name, m in _names(a))
        if narrow:
            raise _unreachable(structure, chosen, usage, gauge)
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


def _filled_up(
    structure: Structure,
    kept: Mapping[str, Tensor],
    allocations: Sequence[Allocation],
    scores: Mapping[str, Tensor],
    gauge: Gauge,
) -> dict[str, Tensor]:
    """``kept`` widened, one allocation at a time, while the limits and the model's own arithmetic allow it."""
    found = dict(kept)
    waiting = list(allocations)
    while waiting:
        left = []
        for a in waiting:
            now = len(found[a.groups[0]]) // a.multiples[0]
            for width in [w for w in a.allowed if w > now][:_AHEAD]:
                tried = {**{n: len(k) for n, k in found.items()}, **counts_of([a], [width])}
                if not gauge.met(gauge.usage(tried)):
                    break
                units = {n: best(scores[n].detach().cpu().double(), tried[n]) for n in a.groups}
                if not violated(structure, structure.alive({**found, **units})):
                    found |= units
                    left.append(a)
                    break
        waiting = left
    return found


def _unreachable(
    structure: Structure, chosen: Sequence[Group], usage: Mapping[str, float], gauge: Gauge
) -> SelectionError:
    """Says what the narrowest widths leave, and which widths stay."""
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
    return SelectionError(
        "the target is out of reach: " + "; ".join(parts),
        where="; ".join(limits),
        hint="raise the limit, lower align or max_ratio, or include more roles",
    )
