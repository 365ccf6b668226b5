"""What widths cost by quantity, and the limits on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunekit.coupling.cost import Cost
from prunekit.coupling.structure import Structure
from prunekit.quantities.counted_cost import CountedCost
from prunekit.quantities.latency_table import LatencyTable, Pace
from prunekit.quantities.limits import Target, parse_target


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
