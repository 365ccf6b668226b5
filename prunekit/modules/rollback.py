"""How a model stands: which objects its modules hold, to be put back where something fails half-way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from prunekit.modules.walk import named_modules, state_tensors

_CONTAINERS = (dict, list, set)


def standing(model: nn.Module, walked: Sequence[tuple[str, nn.Module]] | None = None) -> Callable[[], None]:
    """A function that makes ``model`` stand as it does now: classes, attributes, hooks, tensors, what needs gradients.

    It puts references back and copies nothing: values that are written over inside a tensor are no part of it
    (``kept_as_is`` has these). torch's random state is. It may be called again where it was interrupted. ``walked`` are
    the model's ``named_modules``, where they are known.
    """
    walked = named_modules(model) if walked is None else walked
    modules = [(module, type(module), dict(module.__dict__)) for _, module in walked]
    held = {id(value): value for _, _, known in modules for value in known.values() if isinstance(value, _CONTAINERS)}
    contents = [(value, _contents_of(value)) for value in held.values()]
    flags = [(t, t.requires_grad, t.grad) for t in state_tensors(model, walked).values() if t.is_leaf]
    random = torch.get_rng_state()

    def restore() -> None:
        for module, kind, known in modules:
            if type(module) is not kind:
                module.__class__ = kind
            for name in [name for name in module.__dict__ if name not in known]:
                del module.__dict__[name]
            for name, value in known.items():
                if module.__dict__.get(name, held) is not value:
                    module.__dict__[name] = value
        for value, before in contents:
            if not _unchanged(value, before):
                value.clear()
                (value.extend if isinstance(value, list) else value.update)(before)
        for tensor, needs, grad in flags:
            if tensor.requires_grad is not needs:
                tensor.requires_grad_(needs)
            if tensor.grad is not grad:
                tensor.grad = grad
        torch.set_rng_state(random)

    return restore


def _contents_of(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else list(value) if isinstance(value, list) else set(value)


def _unchanged(value: Any, before: Any) -> bool:
    """Whether a container holds the same objects in the same order."""
    if len(value) != len(before):
        return False
    if isinstance(value, dict):
        return all(a == b and value[a] is before[b] for a, b in zip(value, before, strict=True))
    if isinstance(value, set):
        return bool(value == before)
    return all(a is b for a, b in zip(value, before, strict=True))
