"""A target against a structure: what widths cost, which are the widest within it, and what stands in the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunekit.coupling.cost import Cost
from prunekit.coupling.counted import CountedCost
from prunekit.coupling.groups import Group
from prunekit.coupling.structure import Structure
from prunekit.errors import SelectionError
from prunekit.planning.reconcile import reconcile
from prunekit.planning.solve import violated
from prunekit.selection import How, select_within
from prunekit.selection.ranking import Allocation, best, counts_of
from prunekit.selection.target import Limit, Target, parse_target
from prunekit.timing.latency import LatencyTable, Pace

_ROUNDS = 12
_AHEAD = 12  # alignment steps that are looked ahead for a width that the model's own arithmetic accepts


@dataclass(frozen=True, eq=False)
class Baseline:
    """The model that relative limits refer to: its quantities, and its pace where a limit is on latency.

    Made once for a whole call, however many steps it takes: nothing is measured twice.
    """

    quantities: Mapping[str, float]
    pace: Pace | None = None

    @classmethod
    def of(cls, model: nn.Module, structure: Structure, target: Target, table: LatencyTable | None = None) -> Baseline:
        """The quantities of ``structure``; latency is measured only where ``target`` limits it."""
        found, pace = fields_of(structure.cost()), None
        if any(limit.quantity == "latency" for limit in parse_target(target)):
            pace = Pace.of(model, structure, table)
            found["latency"] = pace.seconds(structure, {})
        return cls(found, pace)


@dataclass(frozen=True, eq=False)
class Gauge:
    """What a structure costs at given counts, and the limits: quantity -> the most."""

    structure: Structure
    limits: Mapping[str, float]
    counted: CountedCost
    pace: Pace | None = None

    @classmethod
    def of(cls, model: nn.Module, structure: Structure, target: Target, baseline: Baseline | None = None) -> Gauge:
        """The gauge of a target; relative limits refer to ``baseline``, by default to the structure as it is."""
        baseline = baseline or Baseline.of(model, structure, target)
        limits = {x.quantity: x.of(baseline.quantities[x.quantity]) for x in parse_target(target)}
        return cls(structure, limits, CountedCost(structure), baseline.pace)

    def usage(self, counts: Mapping[str, int]) -> dict[str, float]:
        """Each limited quantity when groups keep so many units."""
        kept = None
        if self.pace is not None or not self.counted.exact:
            kept = {name: torch.arange(count) for name, count in counts.items()}
        return self._of(self.structure.cost(kept) if kept and not self.counted.exact else self.counted(counts), kept)

    def exactly(self, kept: Mapping[str, Tensor]) -> dict[str, float]:
        """Each limited quantity when groups keep these units."""
        return self._of(self.structure.cost(kept), kept)

    def _of(self, cost: Cost, kept: Mapping[str, Tensor] | None) -> dict[str, float]:
        found = fields_of(cost)
        if self.pace is not None:
            found["latency"] = self.pace.seconds(self.structure, kept or {})
        return {name: found[name] for name in self.limits}

    def met(self, usage: Mapping[str, float], limits: Mapping[str, float] | None = None) -> bool:
        """Whether all limits hold."""
        return all(usage[name] <= most for name, most in (limits or self.limits).items())


def fields_of(cost: Cost) -> dict[str, float]:
    """The cost by quantity."""
    return {"params": cost.params, "macs": cost.macs, "layer_macs": cost.layer_macs, "memory": cost.memory}


def select_for_target(
    structure: Structure, chosen: Sequence[Group], scores: Mapping[str, Tensor], gauge: Gauge, how: How
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

        kept, allocations = select_within(chosen, structure.ties, scores, fits, how)
        joined = reconcile(structure, chosen, kept, scores)
        usage = gauge.exactly(joined)
        if gauge.met(usage):
            agree = all(len(joined[name]) == len(units) for name, units in kept.items())
            return joined if agree else _filled(structure, joined, allocations, scores, gauge)
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


def _filled(
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
