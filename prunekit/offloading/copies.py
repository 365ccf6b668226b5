"""A copy of a model beside the model, without its bytes in memory a second time."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from prunekit.offloading.spilling import in_file


def copied_in_files(model: nn.Module) -> nn.Module:
    """``copy.deepcopy(model)``; within ``prunekit.offloaded`` large tensors of the copy lie in files of scratch.

    Raises CheckpointError where the disk is full.
    """
    known: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        plain = tensor.detach()
        held = in_file(plain) if type(tensor) in (nn.Parameter, Tensor) and plain.is_contiguous() else plain
        if held is not plain:
            weight = type(tensor) is nn.Parameter
            known[id(tensor)] = twin = nn.Parameter(held, tensor.requires_grad) if weight else held
            twin.__dict__.update(copy.deepcopy(tensor.__dict__, known))  # libraries mark what they have initialised
    return copy.deepcopy(model, known)
