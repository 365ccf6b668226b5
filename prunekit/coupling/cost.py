"""Parameters and multiply-adds, computed from a trace and the shapes that its tensors have or will have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from prunekit.coupling.coupler import Coupler, packet
from prunekit.trace.record import Trace


@dataclass(frozen=True)
class Cost:
    """Counts, not bytes: ``params`` parameters, ``macs`` all multiply-adds of products and convolutions
    (attention included; half of what torch.utils.flop_counter calls flops), ``layer_macs`` those of convolution
    and linear layers only, which is what most papers print."""

    params: int
    macs: int
    layer_macs: int


def measure_ops(trace: Trace, coupler: Coupler, shapes: Mapping[int, tuple[int, ...]]) -> Cost:
    """Cost of one forward pass whose tensors have the given ``shapes`` by id."""
    macs = layer = 0
    for op in trace.ops:
        name = packet(op)
        if name in ("aten.mm", "aten.bmm", "aten._grouped_mm", "aten.addmm", "aten.baddbmm"):
            start = 1 if name in ("aten.addmm", "aten.baddbmm") else 0
            a, b = op.args[start], op.args[start + 1]
            product = math.prod(shapes.get(a.id, a.shape)) * shapes.get(b.id, b.shape)[-1]
            is_layer = a.id in coupler.weights or b.id in coupler.weights
        elif name in ("aten.convolution", "aten._convolution"):
            weight, out = op.args[1], op.outputs[0]
            kernel, result = shapes.get(weight.id, weight.shape), shapes.get(out.id, out.shape)
            data = shapes.get(op.args[0].id, op.args[0].shape)
            spatial = data if op.args[6] else result
            places = math.prod(spatial[2:]) * spatial[0] if len(spatial) == len(kernel) else math.prod(spatial[1:])
            product = math.prod(kernel) * places
            is_layer = weight.id in coupler.weights
        else:
            continue
        macs += product
        layer += product if is_layer else 0
    params = sum(math.prod(shapes.get(r.id, r.shape)) for r in trace.state.values() if r.kind == "parameter")
    return Cost(params, macs, layer)
