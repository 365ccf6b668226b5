"""Parameters, multiply-adds and bytes of what a plan leaves, without carrying it out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from prunekit.coupling.blocks import is_inside
from prunekit.coupling.cost import Cost, CostTerm, measure_ops
from prunekit.coupling.groups import Absence
from prunekit.coupling.structure import Structure
from prunekit.plans.contents import Plan


def cost_after(structure: Structure, plan: Plan) -> Cost:
    """The cost of the model of ``structure`` after ``plan``, affine maps that stand for what went included."""
    gone = [path for removal in plan.removals for path in removal.gone] + [each.module for each in plan.absences]
    units = {width.group: torch.tensor(width.kept, device="cpu") for width in plan.widths}
    deep = {group.name for group in structure.depth.groups} if gone else set()
    kept = {name: each for name, each in units.items() if name in structure.numbers}
    parts = structure.terms_left({name: each for name, each in units.items() if name in deep}, gone)
    left = measure_ops(parts, structure.shapes(kept) if kept else {})
    for params, macs, size in _maps_in(structure, plan):
        more = {"layer_macs": left.layer_macs + macs, "memory": left.memory + size}
        left = replace(left, params=left.params + params, macs=left.macs + macs, **more)
    return left


def map_terms(structure: Structure, absence: Absence) -> tuple[CostTerm, ...]:
    """What the affine map of an absence costs: N x N weights, N biases, and a product for every row of N features."""
    made = next(call for call in structure.trace.modules if call.module == absence.module).outputs[0]
    axis = int(absence.leaves[0].partition(":")[2].partition("=")[0])
    held = [((made, axis), (made, axis)), ((made, axis),)]
    rows = tuple((made, at) for at in range(len(made.shape)))
    return (
        *(CostTerm(("params",), axes, module=absence.module) for axes in held),
        *(CostTerm(("memory",), axes, made.dtype.itemsize, absence.module) for axes in held),
        CostTerm(("macs", "layer_macs"), (*rows, (made, axis)), module=absence.module),
    )


def _maps_in(structure: Structure, plan: Plan) -> Iterator[tuple[int, int, int]]:
    """Parameters, multiply-adds and bytes of every map."""
    out = {path for removal in plan.removals for path in removal.gone}
    for absence in plan.absences:
        if absence.has_map and not is_inside(absence.module, list(out)):
            made = next(call for call in structure.trace.modules if call.module == absence.module).outputs[0]
            axis, width = (int(part) for part in absence.leaves[0].partition(":")[2].split("="))
            rows = 1
            for at, size in enumerate(made.shape):
                rows *= 1 if at == axis else size
            params = width * width + width
            yield params, rows * width * width, params * made.dtype.itemsize
