"""Whether a pruned model is the masked one: the dense model with the removed units at zero gives the same outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

import prunekit
from benchmarks.zoo.tools import RATIO, Record, call, tensors
from prunekit.modules.walk import state_tensors
from prunekit.plans.contents import Cut

TOLERANCE = 1e-4  # relative to the largest value of an output, in float32; a wrong coupling is off by percents
SEED = 0


def exactness(rebuild: Callable[[], nn.Module], x: Any) -> Record:
    """How far the pruned model is from the masked one, relative to the largest value of an output.

    Only groups that no normalisation crosses are cut: there a unit at zero is a unit that is gone. What passes the
    tolerance in float32 is looked at again in float64, where rounding cannot be the reason.
    """
    found = _exactness(rebuild, x)
    if found.get("exact_error", 0.0) > TOLERANCE:
        again = _exactness(lambda: rebuild().double(), _double(x))
        found = again if "exact_error" in again else found
    return found


def _exactness(rebuild: Callable[[], nn.Module], x: Any) -> Record:
    try:
        model, twin = rebuild(), rebuild()
        twin.load_state_dict(model.state_dict())  # a builder may forget to seed
        structure = prunekit.trace(model, x)
        names = [g.name for g in structure.groups if not g.normalised]
        if not names:
            return {"exact": "every group is crossed by a normalisation"}
        result = prunekit.prune(model, x, structure=structure, include=names, ratio=RATIO)
        if result.report.notes:
            return {"exact": f"the report tells that it is not: {result.report.notes[0]}"}
        masked = mask(twin, result.plan.cuts)
    except Exception as error:  # the row itself has been pruned: these groups alone may still be refused
        return {"exact": f"{type(error).__name__}: {error}"[:200]}
    expected, got = _run(masked, x), _run(model, x)
    if [t.shape for t in expected] != [t.shape for t in got]:
        return {"exact": "outputs of other shapes", "exact_error": float("inf")}
    if not all(bool(t.isfinite().all()) for t in expected):
        return {"exact": "the masked model is not finite: something divides by a norm of what is zero"}
    far = max((_distance(a, b) for a, b in zip(expected, got, strict=True)), default=0.0)
    return {"exact_error": far, "exact_widths": len(result.plan.widths)}


def mask(model: nn.Module, cuts: Iterable[Cut]) -> nn.Module:
    """``model`` with zeros in every parameter where ``cuts`` would remove something."""
    state = state_tensors(model)
    buffers = {id(buffer) for buffer in model.buffers()}
    with torch.no_grad():
        for cut in cuts:
            if id(state[cut.tensor]) not in buffers:
                gone = sorted(set(range(cut.size)) - set(cut.kept))
                state[cut.tensor].index_fill_(cut.axis, torch.tensor(gone, dtype=torch.long), 0.0)
    return model


def _run(model: nn.Module, x: Any) -> list[Tensor]:
    torch.manual_seed(SEED)
    with torch.no_grad():
        return [t.double() for t in tensors(call(model, x)) if t.is_floating_point()]


def _distance(a: Tensor, b: Tensor) -> float:
    if not a.numel():
        return 0.0
    return float((a - b).abs().max()) / max(float(a.abs().max()), 1e-12)


def _double(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return tree.double() if tree.is_floating_point() else tree
    if isinstance(tree, dict):
        return {key: _double(value) for key, value in tree.items()}
    return type(tree)(_double(value) for value in tree) if isinstance(tree, (list, tuple)) else tree
