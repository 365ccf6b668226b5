"""Whether a model's name gives back the model that is saved under it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from prunekit.errors import CheckpointError
from prunekit.modules.absent import MAP
from prunekit.plans.contents import Plan
from prunekit.plans.renaming import Renaming
from prunekit.registry.building import build

_SHOWN = 3


def check_spec(spec: str, options: Mapping[str, Any], part: str, model: nn.Module, plan: Plan) -> None:
    """Raises CheckpointError where ``spec``, cut by ``plan``, has other tensors than ``model``, RegistryError for a
    name that nobody knows."""
    fresh = _fresh(spec, options)
    predicted = {name: list(value.shape) for name, value in fresh.state_dict().items()}
    for cut in plan.cuts:
        name = f"{part}.{cut.tensor}" if part else cut.tensor
        shape = predicted.get(name)
        if shape is not None and cut.axis < len(shape) and shape[cut.axis] == cut.size:
            shape[cut.axis] = len(cut.kept)
    tied = _as_named_now(_tied(fresh, predicted), part, plan)
    predicted = _as_named_now(predicted, part, plan)
    found = {name: list(value.shape) for name, value in model.state_dict().items() if hasattr(value, "shape")}
    faults = [f"{name} is missing" for name in found if name not in predicted]
    faults += [f"{name} is too much" for name in predicted if name not in found]
    faults += [
        f"{name} would be {tuple(tied[name])}, not {tuple(found[name])}"
        for name in found
        if name in tied and tied[name] != found[name]
    ]
    if faults:
        more = f", and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise CheckpointError(
            f"{spec} does not give this model back: {', '.join(faults[:_SHOWN])}{more}",
            where="spec",
            hint="give the arguments that it was made with, e.g. SOURCE:NAME?num_classes=10, or leave spec out",
        )


def _as_named_now(shapes: dict[str, list[int]], part: str, plan: Plan) -> dict[str, list[int]]:
    """Without the blocks that ``plan`` removes from ``part``, the rest under the names that it has then."""
    names, prefix = Renaming(plan.removals, plan.absences), f"{part}." if part else ""
    found = {}
    for name, shape in shapes.items():
        inside = name.startswith(prefix)
        now = names.now(name.removeprefix(prefix)) if inside else name
        if now is not None:
            found[f"{prefix}{now}" if inside else now] = shape
    return found | _maps(prefix, plan)


def _maps(prefix: str, plan: Plan) -> dict[str, list[int]]:
    """Shapes of the affine maps that stand in the place of what went."""
    names, found = Renaming(plan.removals), dict[str, list[int]]()
    for absence in plan.absences:
        now = names.now(absence.module)
        if absence.has_map and now is not None:
            size = int(absence.leaves[0].rpartition("=")[2])
            found |= {f"{prefix}{now}.{MAP}.weight": [size, size], f"{prefix}{now}.{MAP}.bias": [size]}
    return found


def _fresh(spec: str, options: Mapping[str, Any]) -> nn.Module:
    """The model without weights where its code allows that; the random state is as before."""
    with torch.random.fork_rng([]):
        try:
            with torch.device("meta"):
                return build(spec, **options).model
        except Exception:  # the factory is someone else's: a real build tells whether it or the meta device is at fault
            return build(spec, **options).model


def _tied(model: nn.Module, predicted: dict[str, list[int]]) -> dict[str, list[int]]:
    """A plan names a tied tensor once; its other names have the same shape."""
    first: dict[int, str] = {}
    out = {}
    for name, tensor in [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]:
        out[name] = predicted.get(first.setdefault(id(tensor), name), predicted.get(name, []))
    return {name: out.get(name, shape) for name, shape in predicted.items()}
