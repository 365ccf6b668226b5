"""The bits of a model's tensors, to be put back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from prunekit.modules.walk import state_tensors


def kept_as_is(model: nn.Module) -> Callable[[], None]:
    """A function that writes the present values back into the model's parameters and buffers, the same tensors."""
    saved = [(tensor, tensor.detach().clone()) for tensor in state_tensors(model).values()]

    def restore() -> None:
        with torch.no_grad():
            for tensor, before in saved:
                tensor.copy_(before)

    return restore
