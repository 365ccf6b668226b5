"""Weights that are not finite, by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunekit.inputs import is_number
from prunekit.modules.walk import state_tensors


@torch.no_grad()
def unsound(model: nn.Module) -> list[str]:
    """Parameters that hold NaN or infinity, and buffers that hold NaN: masks are made of infinities."""
    found = [name for name, value in model.named_parameters() if not _sums_up(value) and not value.isfinite().all()]
    return found + [name for name, value in model.named_buffers() if not _sums_up(value) and value.isnan().any()]


@torch.no_grad()
def not_finite(model: nn.Module) -> list[str]:
    """The names of floating and complex state tensors that hold NaN or infinity."""
    state = state_tensors(model).items()
    return [name for name, t in state if is_number(t) and not t.is_meta and not all_finite(t)]


def all_finite(value: Tensor) -> bool:
    """Whether no element is NaN or infinite: one sum says so, and only where it does not each element is asked."""
    return _sums_up(value) or bool(value.isfinite().all())


def _sums_up(value: Tensor) -> bool:
    """A sum is finite only if every element is; where it is not, it may have overflowed."""
    return not is_number(value) or bool(torch.isfinite(value.sum()))
