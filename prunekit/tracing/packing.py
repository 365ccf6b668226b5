"""Packed sequences: torch keeps how many sequences go on at a time on the CPU, whatever device the rest is on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

PACK = torch.ops.aten._pack_padded_sequence.default


def packed(args: Any, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Packed rows on meta, and the batch sizes as they are, which an LSTM reads."""
    rows, batch_first = args[0], args[2]
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        model = torch.zeros(rows.shape[:2], device="cpu")
        _, sizes = torch._VF._pack_padded_sequence(model, lengths.cpu(), batch_first)
        return torch.empty((int(lengths.sum()), *rows.shape[2:]), dtype=rows.dtype, device="meta"), sizes


def is_for_lengths(func: Any, kwargs: dict[str, Any]) -> bool:
    """Whether this is where unpacking writes the lengths, element by element, so that it has to be memory."""
    wanted = kwargs.get("device"), kwargs.get("dtype")
    return func is torch.ops.aten.empty.memory_format and wanted == (torch.device("cpu"), torch.int64)
