"""Modules and state tensors of a model by name: torch's order and names, without its nested generators."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def named_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """``model`` and every module below it once, under its first path."""
    found: list[tuple[str, nn.Module]] = []
    seen: set[int] = set()
    stack: list[tuple[str, nn.Module]] = [("", model)]
    while stack:
        path, module = stack.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        found.append((path, module))
        prefix = f"{path}." if path else ""
        for name, child in reversed(module._modules.items()):
            kind: Any = type(child)
            if child is not None and not (_is_script(kind) and _is_alone(child)):
                stack.append((prefix + name, child))
    return found


@functools.cache
def _is_script(kind: Any) -> bool:
    return issubclass(kind, torch.jit.ScriptModule)


def _is_alone(child: nn.Module) -> bool:
    """Whether there is nothing to see: of scripted code without tensors of its own only what it runs matters."""
    return next(child.parameters(), None) is None and next(child.buffers(), None) is None


def state_tensors(model: nn.Module, modules: Sequence[tuple[str, nn.Module]] | None = None) -> dict[str, Tensor]:
    """Parameters and buffers by name, a tied tensor once, under its first name; non-persistent buffers included.

    ``modules`` are the model's ``named_modules``, where they are known.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    modules = named_modules(model) if modules is None else modules
    for kind in ("_parameters", "_buffers"):
        for path, module in modules:
            prefix = f"{path}." if path else ""
            for name, tensor in getattr(module, kind).items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    found[prefix + name] = tensor
    return found
