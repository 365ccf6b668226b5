"""The state of a training loop as plain tensors and JSON values, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.errors import CheckpointError
from prunekit.runs.distillation.joint import divided_like, whole

OPTIMISER, RNG = "optimiser.", "rng."


@dataclass(frozen=True)
class State:
    """``progress``: JSON values. ``tensors``: optimiser moments and random states by name; no weights."""

    progress: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def state_of(progress: Mapping[str, Any], optimiser: torch.optim.Optimizer, model: nn.Module) -> State:
    """The state of ``optimiser`` by parameter name, torch's random states, and ``progress``. Tensors are on the CPU."""
    names = {id(p): name for name, p in model.named_parameters()}
    tensors = {
        f"{OPTIMISER}{names[id(p)]}|{key}": whole(torch.as_tensor(value, device="cpu")).detach().to("cpu", copy=True)
        for p, state in optimiser.state.items()
        for key, value in state.items()
    }
    return State(progress, tensors | random_states())


def restored(state: State, optimiser: torch.optim.Optimizer, model: nn.Module) -> None:
    """Puts ``state`` back into ``optimiser`` and torch's generators. Raises CheckpointError for another model's."""
    weights = dict(model.named_parameters())
    own = {p for group in optimiser.param_groups for p in group["params"]}
    for key, value in state.tensors.items():
        if not key.startswith(OPTIMISER):
            continue
        name, _, field = key.removeprefix(OPTIMISER).rpartition("|")
        if name not in weights or weights[name] not in own:
            raise CheckpointError(f"the kept state has moments of {name}, which is not trained", hint="start again")
        p = weights[name]
        # Adam counts its steps on the CPU
        moved = value.clone() if value.ndim == 0 else divided_like(value.to(p.device, copy=True), p)
        optimiser.state[p][field] = moved
    restore_random(state.tensors)


def random_states() -> dict[str, Tensor]:
    """The states of torch's generators by name, uint8."""
    found = {f"{RNG}cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        found |= {f"{RNG}cuda{n}": state for n, state in enumerate(torch.cuda.get_rng_state_all())}
    return found


def restore_random(tensors: Mapping[str, Tensor]) -> None:
    """Puts the states of ``random_states`` back, as far as the devices are there."""
    if f"{RNG}cpu" in tensors:
        torch.set_rng_state(tensors[f"{RNG}cpu"])
    for n in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if f"{RNG}cuda{n}" in tensors:
            torch.cuda.set_rng_state(tensors[f"{RNG}cuda{n}"], n)
