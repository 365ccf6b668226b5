"""How a model stands: which objects its modules hold, to be put back where something fails half-way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from prunekit.modules.holdings import contents_of, held_by, refilled
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
    contents = [(value, contents_of(value)) for value in held.values()]
    inside = held_by(walked)
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
            refilled(value, before)
        inside.put_back()
        for tensor, needs, grad in flags:
            if tensor.requires_grad is not needs:
                tensor.requires_grad_(needs)
            if tensor.grad is not grad:
                tensor.grad = grad
        torch.set_rng_state(random)

    return restore
