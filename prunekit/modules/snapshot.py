"""The bits of a model's tensors, to be put back."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import Tensor, nn

from prunekit.modules.walk import state_tensors


def write_into(tensor: Tensor, values: Tensor) -> None:
    """Writes ``values`` into a tensor that may require gradients.

    Not within ``torch.no_grad()``: an interrupt on the way out of that block leaves gradients off for good.
    """
    tensor.detach().copy_(values)


def kept_as_is(model: nn.Module) -> Callable[[], None]:
    """A function that writes the present values back into the model's parameters and buffers, the same tensors."""
    saved = [(tensor, tensor.detach().clone()) for tensor in state_tensors(model).values()]

    def restore() -> None:
        for tensor, before in saved:
            write_into(tensor, before)

    return restore


def sharing_copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode that holds the very parameters of ``model``, and buffers of its own.

    It stays what ``model`` is now when that is cut: a cut puts other parameters in the place of these.
    """
    known: dict[int, object] = {id(parameter): parameter for parameter in model.parameters()}
    made = copy.deepcopy(model, known)
    for module in made.modules():
        module.training = False  # and not eval(), which classes may override
    return made
