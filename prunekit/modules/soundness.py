"""Weights that are not finite, by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def unsound(model: nn.Module) -> list[str]:
    """Parameters that hold NaN or infinity, and buffers that hold NaN: masks are made of infinities."""
    found = [name for name, value in model.named_parameters() if not _sums_up(value) and not value.isfinite().all()]
    return found + [name for name, value in model.named_buffers() if not _sums_up(value) and value.isnan().any()]


def _sums_up(value: Tensor) -> bool:
    """A sum is finite only if every element is; where it is not, it may have overflowed."""
    return not value.is_floating_point() or bool(torch.isfinite(value.sum()))
