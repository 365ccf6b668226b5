"""How much goes, and where: what a user asks of a recipe, told to each of its prune stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from prunekit.coupling.structure import Structure
from prunekit.errors import SelectionError
from prunekit.options import Options, Scope
from prunekit.planning.candidates import choose
from prunekit.planning.depth_amount import original_sizes
from prunekit.planning.iteration import part_of
from prunekit.planning.parting import scopes_of
from prunekit.quantities.gauge import Allowance, Baseline, Gauge
from prunekit.recipes.stages import Prune, Stage
from prunekit.selection import Conditions, select
from prunekit.options.types import Ratio
from prunekit.selection.ratio import check_keys, matches
from prunekit.quantities.limits import Target

_HALVINGS = 20
_MOST = Fraction(95, 100)


@dataclass(frozen=True, eq=False)
class Shares:
    """A goal against one model: what each prune stage of a recipe is asked for.

    A target is met by the last kind of cut, counted from the model as that finds it. Earlier kinds (the embedding,
    before the bottleneck) take the one ratio that would meet it if every kind took it.

    Attributes:
        baseline: the original, which relative and partial targets refer to; None without a target.
        sizes: the original's units by group name, which partial ratios refer to.
        apart: whether blocks have stages of their own.
    """

    goal: Scope
    baseline: Baseline | None
    sizes: Mapping[str, int]
    last: tuple[tuple[str, ...], ...]
    common: float
    apart: bool = False

    @classmethod
    def of(cls, goal: Scope, stages: Sequence[Stage], part: nn.Module, structure: Structure) -> Shares:
        """Raises InputError for a ratio whose key matches no group, SelectionError for a target out of reach."""
        cuts = [stage for stage in stages if isinstance(stage, Prune)]
        if isinstance(goal.ratio, Mapping):
            check_keys(goal.ratio, (*structure.groups, *structure.depth.groups), "ratio")
        baseline = None if goal.target is None else Baseline.of(part, structure, goal.target)
        common = 0.0
        widths = [cut for cut in cuts if not cut.deep]
        if baseline is not None and len({cut.pools for cut in widths}) > 1:
            common = _common(goal, widths, part, structure, baseline)
        sizes = original_sizes(structure, scopes_of(goal)[0] or goal)
        return cls(goal, baseline, sizes, cuts[-1].pools, common, any(cut.deep for cut in cuts))

    @classmethod
    def again(
        cls, goal: Scope, stages: Sequence[Stage], part: nn.Module, structure: Structure, told: Mapping[str, Any]
    ) -> Shares:
        """Those of a run that was interrupted, from its ``values``: limits stay what they were."""
        pools = [stage.pools for stage in stages if isinstance(stage, Prune)][-1]
        baseline = None if goal.target is None else Baseline.of(part, structure, goal.target)
        if baseline is not None:
            baseline = replace(baseline, quantities=told["quantities"])
        apart = any(isinstance(stage, Prune) and stage.deep for stage in stages)
        sizes = original_sizes(structure, scopes_of(goal)[0] or goal)
        return cls(goal, baseline, sizes, pools, told["common"], apart)

    def values(self) -> dict[str, Any]:
        """JSON values of what was measured."""
        quantities = None if self.baseline is None else dict(self.baseline.quantities)
        return {"quantities": quantities, "common": self.common}

    def asked(self, stage: Prune, structure: Structure) -> tuple[Ratio | None, Target | None]:
        """(ratio, target) of ``stage`` on the model as it stands: one of them."""
        target = self.goal.target
        if target is not None and self.baseline is not None:
            if stage.pools == self.last or stage.deep:
                part = stage.part * stage.share
                return None, target if part == 1 else part_of(target, part, self.baseline.quantities)
            return self.common * stage.part, None
        share = self.goal.share
        if isinstance(share, Mapping):
            groups = structure.groups if self.apart else (*structure.groups, *structure.depth.groups)
            groups = structure.depth.groups if stage.deep else groups
            here = [g for g in groups if not stage.pools or g.role in {r for p in stage.pools for r in p}]
            return {k: v * stage.part for k, v in share.items() if any(matches(k, g) for g in here)}, None
        return share * stage.part * stage.share, None


def _common(goal: Scope, stages: Sequence[Prune], part: nn.Module, structure: Structure, baseline: Baseline) -> float:
    """The least ratio that meets the target when every stage takes it of each of its groups."""
    assert goal.target is not None
    roles = sorted({role for stage in stages for pool in stage.pools for role in pool})
    groups = choose(structure, replace(goal, roles=roles))
    gauge = Gauge.of(part, structure, goal.target, baseline)
    allowance = Allowance(gauge)
    scores = {group.name: torch.zeros(group.size, device="cpu") for group in groups}
    down = Conditions(Options.of(rounding="down"))

    def usage(share: Fraction) -> dict[str, float]:
        kept = select(groups, structure.ties, scores, float(share), down)
        return allowance.usage({name: len(units) for name, units in kept.items()})

    low, high = Fraction(0), _MOST
    if not gauge.met(least := usage(high)):
        left = ", ".join(f"{name} {least[name]:.4g} of {baseline.quantities[name]:.4g}" for name in gauge.limits)
        raise SelectionError(
            f"the target is out of reach: {float(high):.0%} of every group gone leaves {left}",
            where=str(goal.target),
            hint="raise the limit",
        )
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if gauge.met(usage(middle)) else (middle, high)
    return float(high)
