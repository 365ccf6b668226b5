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
_INDEX = ".index.json"
SHOWN = 3  # faulty names of a kind that a message lists


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of ``path`` by name, on the CPU: .safetensors, or a .pth / .pt that holds a state dict.

    A state dict below the key ``model`` or ``state_dict`` is found too, and in place of ``path`` the shards that
    ``path.index.json`` lists beside it. Raises CheckpointError for a missing, truncated
    or foreign file; nothing but tensors and plain containers is ever unpickled.
    """
    path = Path(path)
    path = path.with_name(path.name.removesuffix(_INDEX)) if path.name.endswith(f".safetensors{_INDEX}") else path
    if path.suffix == ".safetensors" and shard_index(path).is_file() and not path.is_file():
        return _read_shards(path)
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


def write_state(model: nn.Module, path: Path, shard: int | None = None) -> list[str]:
    """``model``'s state as safetensors, and the names of the files. A tied tensor is stored once.

    Its other names go into the header. Where the tensors have more than ``shard`` bytes, files of at most so many and
    an index of them are written in place of ``path``, as the libraries do that share large models.
    """
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
        tensors[name] = value.detach()
    told = {ALIASES: json.dumps(aliases)}
    shards = _shards(tensors, shard)
    if len(shards) == 1:
        _write_tensors(tensors, path, told)
        return [path.name]
    names = [f"{path.stem}-{k:05d}-of-{len(shards):05d}{path.suffix}" for k in range(1, len(shards) + 1)]
    for name, held in zip(names, shards, strict=True):
        _write_tensors({key: tensors[key] for key in held}, path.with_name(name), told)
    where = {key: name for name, held in zip(names, shards, strict=True) for key in held}
    sizes = {"total_size": sum(t.nbytes for t in tensors.values())}
    shard_index(path).write_text(json.dumps({"metadata": {**told, **sizes}, "weight_map": where}, indent=1) + "\n")
    return [*names, shard_index(path).name]


def shard_index(path: Path) -> Path:
    """The file that lists the shards of weights that are not all in ``path``."""
    return path.with_name(f"{path.name}{_INDEX}")


def files_of(path: Path) -> list[Path]:
    """The files that hold the weights of ``path``: itself, or the shards of its index. Raises CheckpointError."""
    if path.is_file() or not shard_index(path).is_file():
        return [path]
    try:
        names = sorted(set(json.loads(shard_index(path).read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unreadable(shard_index(path), error) from error
    if not names or any(not isinstance(n, str) or Path(n).name != n or Path(n).suffix != path.suffix for n in names):
        raise CheckpointError(f"{shard_index(path)} lists what are no files beside it", hint="save or copy it again")
    return [path.with_name(name) for name in names]


def _shards(tensors: Mapping[str, Tensor], most: int | None) -> list[list[str]]:
    """Names in order, as many together as ``most`` bytes hold, and at least one."""
    shards: list[list[str]] = [[]]
    held = 0
    for name, tensor in tensors.items():
        if shards[-1] and most is not None and held + tensor.nbytes > most:
            shards.append([])
            held = 0
        shards[-1].append(name)
        held += tensor.nbytes
    return shards


def _write_tensors(tensors: Mapping[str, Tensor], path: Path, told: dict[str, str]) -> None:
    plain = {}
    for name, value in tensors.items():
        # a copy of views, because safetensors refuses those that share their storage
        whole = value.is_contiguous() and value.untyped_storage().nbytes() == value.nbytes
        plain[name] = value.to("cpu", copy=not whole).contiguous()
    save_file(plain, path, metadata=told)


def _read_shards(path: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in files_of(path):
        if not file.is_file():
            raise CheckpointError(f"{file} is missing", hint=f"{shard_index(path).name} lists it: copy it again")
        found |= _read_safetensors(file, all_names=False)
    aliases = _aliases(path)
    if not all(isinstance(other, str) and other in found for other in aliases.values()):
        raise CheckpointError(f"{shard_index(path)} names tensors that no shard holds", hint="save or copy it again")
    return found | {name: found[other] for name, other in aliases.items()}


def _aliases(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(json.loads(shard_index(path).read_text()).get("metadata", {}).get(ALIASES, "{}")))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _unreadable(shard_index(path), error) from error


def _read_safetensors(path: Path, *, all_names: bool = True) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
            told = (file.metadata() or {}).get(ALIASES, "{}") if all_names else "{}"
            aliases: dict[str, str] = json.loads(told)
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
