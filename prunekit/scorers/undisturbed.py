"""Run a model for its gradients and leave it as it was."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.inputs import is_number
from prunekit.modules.holdings import held_by
from prunekit.modules.snapshot import write_into
from prunekit.modules.write_guard import unwritten


@contextmanager
def untouched(model: nn.Module, wanted: Collection[str]) -> Iterator[None]:
    """Inside: eval mode, gradients on for the parameters ``wanted`` and no others.

    Afterwards, failure included, requires_grad flags, training modes, every tensor that forward wrote into, plain
    attributes, containers, tensor caches and the global RNG of torch are what they were. ``.grad`` is not written by
    torch.autograd.grad, so nobody need restore it.
    """
    parameters = dict(model.named_parameters())
    flags = {name: p.requires_grad for name, p in parameters.items()}
    modes = [(module, module.training) for module in model.modules()]
    held = [(vars(module), dict(vars(module))) for module in model.modules()]  # forward may leave tensors there
    tables = [  # hooks and modules that forward registers
        (table, table.copy()) for _, own in held for name, table in own.items() if name[:1] == "_" and _is_dict(table)
    ]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    caches = tensor_caches(model)
    inside = held_by(model.named_modules())
    devices = sorted({p.device.index or 0 for p in parameters.values() if p.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices), torch.inference_mode(False), unwritten(model), torch.enable_grad():
            # The flag and not eval(): some modules override train() to merge weights, which does not round-trip.
            for module, _ in modes:
                module.training = False
            # A tensor that an earlier call left with its graph cannot be differentiated again.
            for _, _, value, content in caches:
                for key in [key for key, tensor in content.items() if tensor.grad_fn is not None]:
                    del value[key]
            for name, p in parameters.items():
                if p.is_leaf and is_number(p):
                    p.requires_grad_(name in wanted)
            yield
    finally:
        for name, p in parameters.items():
            p.requires_grad_(flags[name])
        for attributes, before_run in held:
            for name in attributes.keys() - before_run.keys():
                del attributes[name]
            attributes.update(before_run)
        for table, content in tables:
            if table.keys() != content.keys() or any(table[key] is not content[key] for key in content):
                table.clear()
                table.update(content)
        for module, mode in modes:
            module.training = mode
        for buffer, before in buffers:
            if not torch.equal(buffer, before):
                write_into(buffer, before)
        restore_caches(caches)
        inside.put_back()


def _is_dict(value: Any) -> bool:
    return type(value) in (dict, OrderedDict)


Cache = tuple[nn.Module, str, dict[Any, Any], dict[Any, Any]]


def tensor_caches(model: nn.Module) -> list[Cache]:
    """Dict attributes that hold tensors or nothing.

    A tensor derived from a parameter that a forward pass leaves there keeps its graph, and the next backward pass
    would run through a graph that is already freed.
    """
    return [
        (module, name, value, dict(value))
        for module in model.modules()
        for name, value in vars(module).items()
        if type(value) is dict and not name.startswith("_") and all(isinstance(v, Tensor) for v in value.values())
    ]


def restore_caches(caches: list[Cache]) -> None:
    """Put the dicts back, and their contents at the time of ``tensor_caches``."""
    for module, name, value, content in caches:
        value.clear()
        value.update(content)
        setattr(module, name, value)
