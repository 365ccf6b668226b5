"""Experts that are never chosen: what a router says of them is lowered as far as numbers go."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.modules.walk import state_tensors


@dataclass(frozen=True)
class Route:
    """One expert: place ``number`` among what the linear layer ``router`` gives, and in the tensors ``beside``.

    ``beside`` are tensors with a value an expert, such as a bias that corrects the choice.
    """

    router: str
    number: int
    beside: tuple[str, ...] = ()


@contextlib.contextmanager
def unrouted(model: nn.Module, routes: Collection[Route]) -> Iterator[None]:
    """Inside the context no token is sent to these experts, as far as scores decide; then all is as it was."""
    numbers: dict[str, list[int]] = {}
    beside: dict[str, list[int]] = {}
    for route in routes:
        numbers.setdefault(route.router, []).append(route.number)
        for name in route.beside:
            beside.setdefault(name, []).append(route.number)
    state = state_tensors(model) if beside else {}
    kept = {name: state[name].detach().clone() for name in beside}
    with contextlib.ExitStack() as scope, torch.no_grad():
        for path, gone in numbers.items():
            handle = model.get_submodule(path).register_forward_hook(partial(_lowered, gone=gone))
            scope.callback(handle.remove)
        try:
            for name, gone in beside.items():
                state[name][gone] = _low(state[name])
            yield
        finally:
            for name, values in kept.items():
                state[name].copy_(values)


def _lowered(module: nn.Module, args: Any, output: Tensor, *, gone: list[int]) -> Tensor:
    return output.index_fill(-1, torch.tensor(gone, device=output.device), _low(output))


def _low(like: Tensor) -> float:
    """So low that nothing is added to it that would bring it back, and no sum of a few is infinite."""
    return float(torch.finfo(like.dtype).min) / 16
