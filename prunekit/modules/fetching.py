"""``prunekit.fetched``: weights that accelerate fetches for every call become the model's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.errors import InputError, expect
from prunekit.modules.walk import named_modules, state_tensors

_MAP = "hf_device_map"  # accelerate's note on the model of where each part is


@dataclass(frozen=True)
class _Weight:
    """A tensor on meta, ``name`` of ``table``, that a hook fetches from ``source`` as ``key``."""

    table: dict[str, Any]
    name: str
    source: Any
    key: str
    where: str
    is_tied: bool

    @property
    def now(self) -> Tensor:
        tensor: Tensor = self.table[self.name]
        return tensor


def fetched(model: nn.Module) -> nn.Module:
    """The same model, in place, with all its weights on the CPU and without accelerate's hooks.

    ``disk_offload``, ``cpu_offload`` and ``device_map`` of accelerate leave weights on the meta device and fetch them
    whenever a module runs: such a model has nothing to cut. Weights that lie in files are mapped, not read, so within
    ``prunekit.offloaded`` the model may be larger than memory. To divide it again afterwards is
    ``accelerate.dispatch_model``'s. A model without such hooks comes back as it is.

    Raises:
        InputError: where a hook does not have a weight of its module; the model is untouched then.
    """
    expect("model", model, "a torch.nn.Module", fits=isinstance(model, nn.Module))
    hooks = [(path, module, hook) for path, module in named_modules(model) for hook in fetching_hooks(module)]
    if not hooks:
        return model
    from accelerate.hooks import remove_hook_from_module

    read = [(weight, _fetch(weight)) for weight in _fetched_by(hooks)]
    made: list[tuple[_Weight, Tensor]] = []
    for weight, tensor in read:
        own = next((known for other, known in made if _is_one(other, known, weight, tensor)), None)
        if own is None:
            is_parameter = isinstance(weight.now, nn.Parameter)
            own = nn.Parameter(tensor, weight.now.requires_grad) if is_parameter else tensor
        made.append((weight, own))
    for weight, own in made:
        weight.table[weight.name] = own
    for _, _, hook in hooks:
        hook.offload = False  # taken off as it is, it would read all its weights into memory
    remove_hook_from_module(model, recurse=True)
    model.__dict__.pop(_MAP, None)
    if not any(tensor.is_meta for tensor in state_tensors(model).values()):
        model.to("cpu")  # what was on other devices between calls
    return model


def _is_one(one: _Weight, known: Tensor, other: _Weight, tensor: Tensor) -> bool:
    """Whether two places share one weight: accelerate has ties on meta until a call, then in what its hooks note."""
    if known.shape != tensor.shape or known.dtype != tensor.dtype:
        return False
    if one.now is other.now or (tensor.numel() and known.data_ptr() == tensor.data_ptr()):
        return True
    return one.is_tied and other.is_tied and torch.equal(known, tensor)


def fetching_hooks(module: nn.Module) -> Iterator[Any]:
    """Hooks of accelerate that fetch the weights of ``module`` itself, or of what is in it, for each call."""
    given, hooks = module.__dict__.get("_hf_hook"), sys.modules.get("accelerate.hooks")  # who hung one has imported it
    if given is None or hooks is None:
        return
    for hook in given.hooks if isinstance(given, hooks.SequentialHook) else (given,):
        if isinstance(hook, hooks.AlignDevicesHook) and hook.offload:
            yield hook


def _fetched_by(hooks: list[tuple[str, nn.Module, Any]]) -> Iterator[_Weight]:
    for path, module, hook in hooks:
        for inner, part in named_modules(module) if hook.place_submodules else (("", module),):
            for table in (part._parameters, part._buffers):
                for name, tensor in table.items():
                    if tensor is not None and tensor.is_meta:
                        key = f"{inner}.{name}" if inner else name
                        where = f"{path}.{key}" if path else key
                        yield _Weight(table, name, hook.weights_map, key, where, key in hook.tied_params_names)


def _fetch(weight: _Weight) -> Tensor:
    """The weight, mapped where it is a file's own bytes: accelerate itself would copy them."""
    source, key = weight.source, weight.key
    while hasattr(source, "prefix") and hasattr(source, "dataset"):
        source, key = source.dataset, f"{source.prefix}{key}"
    try:
        known = getattr(source, "index", {}).get(key, {}) if key not in getattr(source, "state_dict", ()) else {}
        if known and "safetensors_file" not in known and _is_like(known, weight.now):
            return _mapped_file(Path(source.save_folder) / f"{key}.dat", weight.now)
        tensor: Tensor = source[key]
    except (KeyError, OSError, RuntimeError) as error:
        raise InputError(
            f"accelerate's hook cannot fetch it: {error}", where=weight.where, hint="load the model without device_map"
        ) from error
    if tensor.shape != weight.now.shape:
        raise InputError(
            f"accelerate's hook fetches {tuple(tensor.shape)} for {tuple(weight.now.shape)}",
            where=weight.where,
            hint="load the model without device_map",
        )
    return tensor.to(device="cpu", dtype=weight.now.dtype)


def _is_like(known: Mapping[str, Any], tensor: Tensor) -> bool:
    """Whether a file of this entry of accelerate's index holds the bytes of such a tensor."""
    return known["dtype"] == str(tensor.dtype).removeprefix("torch.") and tuple(known["shape"]) == tuple(tensor.shape)


def _mapped_file(path: Path, like: Tensor) -> Tensor:
    flat = torch.from_file(str(path), shared=False, size=prod(like.shape), dtype=like.dtype)
    return flat.view(like.shape)
