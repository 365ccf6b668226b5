"""Weights that a forward pre-hook computes from parameters and stores in a plain attribute.

``torch.nn.utils.weight_norm``, ``spectral_norm`` and ``torch.nn.utils.prune`` do so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.surgery.way_back import putter


def recompute(module: nn.Module, steps: list[Callable[[], None]]) -> None:
    """They show their new size at once and not only after the next forward, and stay what can be copied.

    After a forward with gradients torch leaves a result of autograd in the attribute, which ``copy.deepcopy`` refuses.
    A forward hook leaves its values there instead; ``steps`` take all of it back.
    """
    stale = False
    for hook in module._forward_pre_hooks.values():
        name = _computed(hook)
        stored = module.__dict__.get(name)
        if not isinstance(stored, Tensor) or not _reads_cut(module, name, stored):
            continue
        stale = True
        steps.append(putter(module.__dict__, name, stored))
        training = module.training
        module.__dict__["training"] = False  # a spectral norm would take a step of its power iteration
        try:
            with torch.no_grad():
                hook(module, ())
        finally:
            module.__dict__["training"] = training
    if stale and leave_values not in module._forward_hooks.values():
        steps.append(module.register_forward_hook(leave_values).remove)


def leave_values(module: nn.Module, _inputs: Any, _output: Any) -> None:
    """A forward hook: the weights that this forward computed, without the way they were computed."""
    for name in _computed_names(module):
        stored = module.__dict__.get(name)
        if isinstance(stored, Tensor) and stored.grad_fn is not None:
            module.__dict__[name] = stored.detach()


def _computed_names(module: nn.Module) -> Iterator[str]:
    return (name for hook in module._forward_pre_hooks.values() if (name := _computed(hook)))


def _computed(hook: Any) -> str:
    name = getattr(hook, "name", None) or getattr(hook, "_tensor_name", None)
    return name if isinstance(name, str) else ""


def _reads_cut(module: nn.Module, name: str, stored: Tensor) -> bool:
    """Whether the parameter that a stored weight is computed from has another shape by now."""
    sources = (module._parameters.get(name + suffix) for suffix in ("_orig", "_v"))
    return any(p is not None and p.shape != stored.shape for p in sources)
