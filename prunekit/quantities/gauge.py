"""What widths cost by quantity, and the limits on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunekit.coupling.cost import COUNTED, Cost
from prunekit.coupling.structure import Structure
from prunekit.errors import InputError
from prunekit.quantities.counted_cost import CountedCost
from prunekit.quantities.given_back import check_given_back
from prunekit.quantities.latency_table import LatencyTable, Pace
from prunekit.quantities.lifetimes import Lifetimes, peak_activations
from prunekit.quantities.limits import Target, parse_target


@dataclass(frozen=True, eq=False)
class Baseline:
    """The model that relative limits refer to: its quantities, its pace where that is limited, and what is ``limited``.

    Made once for a whole call, however many steps it takes: nothing is measured twice. ``is_held`` says that whoever
    asks for a plan holds it against the clock.
    """

    quantities: Mapping[str, float]
    pace: Pace | None = None
    limited: tuple[str, ...] = ()
    is_held: bool = False

    @classmethod
    def of(cls, model: nn.Module, structure: Structure, target: Target, table: LatencyTable | None = None) -> Baseline:
        """The quantities of ``structure``; latency is measured only where ``target`` limits it."""
        found, pace = fields_of(structure.cost()), None
        for limit in parse_target(target):
            if limit.quantity == "activations":
                found["activations"] = peak_activations(structure, {})
            if limit.runner is not None:
                pace = Pace.of(model, structure, table, limit.quantity)
                found[limit.quantity] = pace.seconds(structure, {})
            if not found[limit.quantity]:
                raise _nothing_of(limit.quantity)
            if limit.quantity == "kv_cache":
                check_given_back(model, structure)
        return cls(found, pace, tuple(limit.quantity for limit in parse_target(target)))

    def is_of(self, structure: Structure) -> bool:
        """Whether ``structure`` is the one that limits refer to, and not what earlier steps have left of it."""
        return all(self.quantities[name] == amount for name, amount in fields_of(structure.cost()).items())


@dataclass(frozen=True, eq=False)
class Gauge:
    """What a structure costs at given counts, and the limits: quantity -> the most."""

    structure: Structure
    limits: Mapping[str, float]
    pace: Pace | None = None
    lifetimes: Lifetimes | None = None

    @classmethod
    def of(cls, model: nn.Module, structure: Structure, target: Target, baseline: Baseline | None = None) -> Gauge:
        """The gauge of a target; relative limits refer to ``baseline``, by default to the structure as it is."""
        baseline = baseline or Baseline.of(model, structure, target)
        limits = {x.quantity: x.of(baseline.quantities[x.quantity]) for x in parse_target(target)}
        lifetimes = Lifetimes.of(structure.trace) if "activations" in limits else None
        return cls(structure, limits, baseline.pace, lifetimes)

    @property
    def is_counted(self) -> bool:
        """Whether all that is limited is a sum of products of widths: neither a time nor a peak."""
        return self.pace is None and self.lifetimes is None

    def exactly(self, kept: Mapping[str, Tensor]) -> dict[str, float]:
        """Each limited quantity when groups keep these units."""
        return self.read(self.structure.cost(kept), kept)

    def read(self, cost: Cost, kept: Mapping[str, Tensor]) -> dict[str, float]:
        """Each limited quantity, of which ``cost`` holds those that are counted."""
        found = fields_of(cost)
        if self.pace is not None:
            found[self.pace.quantity] = self.pace.seconds(self.structure, kept)
        if self.lifetimes is not None:
            found["activations"] = peak_activations(self.structure, kept, self.lifetimes)
        return {name: found[name] for name in self.limits}

    def met(self, usage: Mapping[str, float], limits: Mapping[str, float] | None = None) -> bool:
        """Whether all limits hold."""
        return all(usage[name] <= most for name, most in (limits or self.limits).items())


class Allowance:
    """What groups keep within limits, by default the gauge's own, changed a few at a time; at first they are whole."""

    def __init__(self, gauge: Gauge, limits: Mapping[str, float] | None = None) -> None:
        self.gauge, self.limits = gauge, limits or gauge.limits
        self.counts: dict[str, int] = {}
        self._sizes = {group.name: group.size for group in gauge.structure.groups}
        self._cost = CountedCost(gauge.structure)

    def usage(self, counts: Mapping[str, int]) -> dict[str, float]:
        """Each limited quantity when from now on these groups keep so many units, and the others what they kept."""
        self.counts.update(counts)
        kept = {}
        if not self.gauge.is_counted:
            kept = {name: torch.arange(count, device="cpu") for name, count in self.counts.items()}
        return self.gauge.read(self._cost(counts), kept)

    def takes(self, counts: Mapping[str, int]) -> bool:
        """Whether the limits hold when these groups keep so many units; if they do not, all is as it was."""
        before = {name: self.counts.get(name, self._sizes[name]) for name in counts}
        if self.gauge.met(self.usage(counts), self.limits):
            return True
        self.counts.update(before)
        self._cost(before)
        return False


def _nothing_of(quantity: str) -> InputError:
    if quantity == "kv_cache":
        return InputError(
            "the model returns no cache, by the name of an argument that takes it back or as keys and values that its "
            "attentions read, so there is none to limit",
            where="target",
            hint="pass example_inputs with which it does, such as use_cache=True, or limit memory or activations",
        )
    return InputError(f"the model has no {quantity} to limit", where="target", hint="limit another quantity")


def fields_of(cost: Cost) -> dict[str, float]:
    """The cost by quantity."""
    return {name: getattr(cost, name) for name in COUNTED}
