"""Parameters, multiply-adds and bytes, computed from a trace and the shapes that its tensors have or will have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from prunekit.coupling.coupler import Coupler
from prunekit.graph.nodes import Ref, Trace

COUNTED = ("params", "macs", "layer_macs", "memory", "kv_cache")


@dataclass(frozen=True)
class Cost:
    """``params`` parameters, ``macs`` all multiply-adds of products and convolutions (attention included; half of what
    torch.utils.flop_counter calls flops), ``layer_macs`` those of convolution and linear layers only, which is what
    most papers print, ``memory`` the bytes of all parameters and buffers; activations are not in it. ``kv_cache``
    are the bytes of what the model returns to be given back at the next call: see ``Trace.caches``."""

    params: int
    macs: int
    layer_macs: int
    memory: int = 0
    kv_cache: int = 0


@dataclass(frozen=True, eq=False)
class CostTerm:
    """One product of axis lengths that a count is the sum of: ``factor`` times the length of each (tensor, axis).

    ``counts`` are the fields of ``Cost`` that it adds to, ``module`` the path of the module that it arises in.
    """

    counts: tuple[str, ...]
    axes: tuple[tuple[Ref, int], ...]
    factor: int = 1
    module: str = ""

    def value(self, shapes: Mapping[int, tuple[int, ...]]) -> int:
        """The term when tensors have the given ``shapes`` by id."""
        return self.factor * math.prod(shapes.get(ref.id, ref.shape)[axis] for ref, axis in self.axes)


def terms(trace: Trace, coupler: Coupler) -> tuple[CostTerm, ...]:
    """Every term of the cost of one forward pass, and of what the model holds."""
    found = []
    for op in trace.ops:
        product = coupler.table.of(op).product
        if product is None:
            continue
        costs = product(op)
        is_layer = any(factor.id in coupler.weights for factor in costs.factors)
        found.append(CostTerm(("macs", "layer_macs") if is_layer else ("macs",), costs.axes, module=op.module))
    for ref in trace.state.values():
        if ref.kind == "parameter":
            found.append(CostTerm(("params",), _all_axes(ref), module=ref.name.rpartition(".")[0]))
        found.append(CostTerm(("memory",), _all_axes(ref), ref.dtype.itemsize, ref.name.rpartition(".")[0]))
    made_in = {ref.id: op.module for op in trace.ops for ref in op.outputs} if trace.caches else {}
    for ref in trace.caches:
        found.append(CostTerm(("kv_cache",), _all_axes(ref), ref.dtype.itemsize, made_in.get(ref.id, "")))
    return tuple(found)


def _all_axes(ref: Ref) -> tuple[tuple[Ref, int], ...]:
    return tuple((ref, axis) for axis in range(len(ref.shape)))


def measure_ops(parts: tuple[CostTerm, ...], shapes: Mapping[int, tuple[int, ...]]) -> Cost:
    """Cost of one forward pass whose tensors have the given ``shapes`` by id."""
    sums = dict.fromkeys(COUNTED, 0)
    for term in parts:
        value = term.value(shapes)
        for name in term.counts:
            sums[name] += value
    return Cost(**sums)


_SHOWN = {"params", "macs"}  # what a table of layers has


def by_module(parts: tuple[CostTerm, ...], shapes: Mapping[int, tuple[int, ...]]) -> dict[str, tuple[int, int]]:
    """(parameters, multiply-adds) of every module that has some of its own, in the order in which they are met."""
    found: dict[str, tuple[int, int]] = {}
    for term in parts:
        if not _SHOWN & set(term.counts):
            continue
        value = term.value(shapes)
        params, macs = found.get(term.module, (0, 0))
        found[term.module] = (params + value, macs) if "params" in term.counts else (params, macs + value)
    return found
