"""An optimizer made before a cut goes on with the parameters that are there after it: state and all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from prunekit.errors import InputError, expect
from prunekit.modules.walk import state_tensors
from prunekit.plans.contents import Plan
from prunekit.plans.renaming import Renaming


class Pruned(Protocol):
    """What ``prunekit.prune`` returns, as far as it goes here."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def plan(self) -> Plan: ...

    @property
    def replaced(self) -> Mapping[int, tuple[Tensor, str]]: ...


def migrate_optimizer(optimizer: torch.optim.Optimizer, result: Pruned) -> None:
    """Gives ``optimizer`` the live parameters of ``result.model`` in the place of those that the cut replaced.

    Moments and whatever else of its state has a parameter's shape are cut as the parameter was; numbers such as step
    counts stay. Parameters of blocks that are gone leave it.
    Schedulers of the optimizer go on. Call it once, after ``prune`` and before the next step.

    Raises:
        InputError: if a parameter of the optimizer is none that the cut replaced or left, or if state has a shape that
            cannot be told from the parameter's, as in factored moments. The optimizer is then as it was.
    """
    expect("optimizer", optimizer, "an optimizer of torch", fits=isinstance(optimizer, torch.optim.Optimizer))
    parts = all(hasattr(result, part) for part in ("model", "plan", "replaced"))
    expect("result", result, "what prunekit.prune returned", fits=parts)
    live = {id(p): p for p in result.model.parameters()}
    named = state_tensors(result.model)
    names, gone = Renaming(result.plan.removals, result.plan.absences), set[int]()
    new: dict[int, nn.Parameter] = {}
    states: dict[int, dict[str, Any]] = {}
    for group in optimizer.param_groups:
        for old in group["params"]:
            if id(old) in live:
                continue
            replaced = result.replaced.get(id(old))
            if replaced is None or replaced[0] is not old:
                raise InputError(
                    f"a parameter of shape {tuple(old.shape)} is none of this model's",
                    where="optimizer",
                    hint="give the optimizer that trained this very model, once after each prune",
                )
            name, now = replaced[1], names.now(replaced[1])
            if now is None:
                gone.add(id(old))
                continue
            new[id(old)] = cast(nn.Parameter, named[now])
            states[id(old)] = {
                key: _cut_state(value, old, name, key, result.plan)
                for key, value in optimizer.state.get(old, {}).items()
            }
    before = [(group, list(group["params"])) for group in optimizer.param_groups], dict(optimizer.state)
    try:
        for group in optimizer.param_groups:
            group["params"] = [new.get(id(old), old) for old in group["params"] if id(old) not in gone]
        for old in [old for old in optimizer.state if id(old) in new or id(old) in gone]:
            del optimizer.state[old]
        optimizer.state.update({new[number]: state for number, state in states.items() if state})
    except BaseException:
        for group, params in before[0]:
            group["params"] = params
        optimizer.state.clear()
        optimizer.state.update(before[1])
        raise


def _cut_state(value: Any, parameter: Tensor, name: str, key: str, plan: Plan) -> Any:
    """State of one parameter, cut as it was."""
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    if value.shape != parameter.shape:
        if value.numel() == 1:
            return value
        raise InputError(
            f"state {key!r} of {name} has shape {tuple(value.shape)} and the parameter {tuple(parameter.shape)}",
            where="optimizer",
            hint="make a new optimizer: this one keeps its moments in a form that cannot be cut",
        )
    for cut in plan.cuts:
        if cut.tensor == name:
            index = torch.tensor(cut.kept, dtype=torch.long, device=value.device)
            value = value.index_select(cut.axis, index)
    return value.clone()
