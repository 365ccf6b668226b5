"""What was cut of a model so far: every plan since its original, as one."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from torch import nn

from prunekit.errors import PlanError
from prunekit.plans.composition import compose
from prunekit.plans.contents import Plan

_CUTS: WeakKeyDictionary[nn.Module, Plan] = WeakKeyDictionary()


def cut_so_far(model: nn.Module) -> Plan | None:
    """All cuts of ``model`` as one plan on what it was; None where it was not cut, or is a copy of one that was."""
    return _CUTS.get(model)


def remember(model: nn.Module, plan: Plan, steps: list[Callable[[], None]]) -> None:
    """Notes that ``plan`` is being carried out on ``model``; ``steps`` gets what forgets it again."""
    before = _CUTS.get(model)

    def forget() -> None:
        if before is None:
            _CUTS.pop(model, None)
        else:
            _CUTS[model] = before

    steps.append(forget)
    try:
        _CUTS[model] = plan if before is None else compose(before, plan)
    except PlanError:  # something else has changed the model in between: what it was is not known
        _CUTS[model] = plan
