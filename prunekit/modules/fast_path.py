"""Attention without torch's one fused kernel, in which no product can be seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prunekit.modules.process_wide import ProcessWide


@ProcessWide
@contextmanager
def without_fast_path() -> Iterator[None]:
    """Inside, attention computes its products one by one."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
