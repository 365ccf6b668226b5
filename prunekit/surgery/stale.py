"""Optimizers that would train parameters which a cut has replaced are stopped at their next step."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from prunekit.errors import InputError

_DEAD: dict[int, weakref.ref[nn.Parameter]] = {}
_WATCHED: list[Any] = []


def dead(parameters: Iterable[nn.Parameter], steps: list[Callable[[], None]]) -> None:
    """Notes that a cut has replaced ``parameters``; ``steps`` gets what takes that back."""
    if not _WATCHED:
        _WATCHED.append(register_optimizer_step_pre_hook(_refuse))  # torch's own way to hear of every step
    # the callback asks for no global: parameters that end with the interpreter outlive these
    noted = {id(p): weakref.ref(p, partial(_DEAD.pop, id(p))) for p in parameters}

    def alive() -> None:
        for number, reference in noted.items():
            if _DEAD.get(number) is reference:
                del _DEAD[number]

    steps.append(alive)
    _DEAD.update(noted)


def _refuse(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    if not _DEAD:
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            reference = _DEAD.get(id(parameter))
            if reference is not None and reference() is parameter:
                raise InputError(
                    "the optimizer holds parameters that a cut has replaced, and would train nothing that runs",
                    where="optimizer",
                    hint="prunekit.migrate_optimizer(optimizer, result) after prune, or make a new one",
                )
