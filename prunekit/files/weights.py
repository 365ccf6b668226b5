"""Weights without pickle: reading state dicts, checking that they fit, tied tensors."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from prunekit.errors import CheckpointError

ALIASES = "prunekit.aliases"
SHOWN = 3  # faulty names of a kind that a message lists


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of ``path`` by name, on the CPU: .safetensors, or a .pth / .pt that holds a state dict.

    A state dict below the key ``model`` or ``state_dict`` is found too. Raises CheckpointError for a missing, truncated
    or foreign file; nothing but tensors and plain containers is ever unpickled.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}", hint="give the path of a .safetensors, .pth or .pt file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle, key and runtime errors share no base
        raise _unreadable(path, error) from error
    for key in ("model", "state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointError(f"{path} holds no state dict", hint="save model.state_dict() alone into the file")
    return dict(loaded)


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy ``state`` into ``model``; every name and shape must fit, else CheckpointError and an untouched model."""
    expected = model.state_dict()
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    shapes = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    faults = [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds if names]
    if faults:
        raise CheckpointError(
            f"{source} does not fit {type(model).__name__}: {'; '.join(faults)}",
            hint="check that the weights belong to this model",
        )
    fitting = OrderedDict(state)
    # modules that changed their layout between versions ask which one this is: it fits, so it is their own
    fitting._metadata = getattr(expected, "_metadata", {})  # type: ignore[attr-defined]
    model.load_state_dict(fitting, strict=True)


def write_state(model: nn.Module, path: Path) -> None:
    """``model``'s state as safetensors. A tied tensor is stored once; its other names go into the header."""
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[object, ...], str] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{name} of the model's state is no tensor", hint="it cannot be kept without pickle")
        key = (value.device, value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
        if value.numel() and key in first:
            aliases[name] = first[key]
            continue
        first[key] = name
        # a copy, because safetensors refuses views that share their storage
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
    save_file(tensors, path, metadata={ALIASES: json.dumps(aliases)})
    path.chmod(0o644)  # safetensors makes it private; the other files of a folder are not


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
            aliases: dict[str, str] = json.loads((file.metadata() or {}).get(ALIASES, "{}"))
        return state | {name: state[other] for name, other in aliases.items()}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    first_line = next(iter(str(error).splitlines()), "")
    return CheckpointError(
        f"cannot read the weights in {path}: {type(error).__name__}: {first_line}",
        hint="the file may be truncated, or hold more than a state dict of tensors",
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
