"""How much of depth goes: so many units by a ratio, or as many as a target takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from prunekit.coupling.groups import Group
from prunekit.coupling.structure import Structure
from prunekit.options import Options
from prunekit.planning.depth_bounds import check_enough_are_left
from prunekit.quantities.gauge import Baseline, Gauge
from prunekit.removal.covering import Unit
from prunekit.selection.ratio import ratios


def groups_asked(structure: Structure, options: Options) -> tuple[Group, ...]:
    """The groups of the roles that are asked for."""
    roles = options.scope.roles or ()
    return tuple(group for group in structure.depth.groups if group.role in roles)


class Until:
    """When enough is gone: so many of the groups of each pool, or a target met."""

    def __init__(self, groups: Sequence[Group], counts: Mapping[frozenset[str], int], gauge: Gauge | None) -> None:
        self.pools, self.counts, self.gauge = list(counts), counts, gauge
        if gauge is not None:
            self.pools = [frozenset(group.name for group in groups)]

    def __call__(self, pool: frozenset[str], gone: Sequence[Unit], kept: Mapping[str, Tensor]) -> bool:
        if self.gauge is None:
            return sum(name in pool for name, _ in gone) >= self.counts[pool]
        return self.gauge.met(self.gauge.exactly(kept))


def enough_asked(
    model: nn.Module,
    structure: Structure,
    options: Options,
    baseline: Baseline | None,
    sizes: Mapping[str, int] | None,
) -> Until:
    """What the options' target or ratio says; ``sizes`` are units of the original by group, which a ratio is of."""
    target, groups = options.scope.target, groups_asked(structure, options)
    if target is not None:
        baseline = baseline or Baseline.of(model, structure, target, options.cutting.latency)
        return Until(groups, {}, Gauge.of(model, structure, target, baseline))
    shares = ratios(groups, options.scope.share)
    whole = {group.name: (sizes or {}).get(group.name, group.size) for group in groups}
    counts = {}
    for share in dict.fromkeys(shares[g.name] or 0 for g in groups):
        pool = [g for g in groups if (shares[g.name] or 0) == share]
        check_enough_are_left(pool, share)
        asked = float(share) * sum(whole[g.name] for g in pool)
        earlier = sum(whole[g.name] - g.size for g in pool)
        count = math.floor(asked + (0.5 if options.choice.rounding == "nearest" else 0)) - earlier
        counts[frozenset(g.name for g in pool)] = max(0, count)
    return Until(groups, counts, None)
