"""Attention without torch's one fused kernel, in which no product can be seen."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_LOCK = threading.Lock()
_INSIDE: list[bool] = []  # what the switch was before the first of those that are inside, once for each of them


@contextmanager
def without_fast_path() -> Iterator[None]:
    """Inside, attention computes its products one by one.

    There is one switch for all threads: it is put back when the last of those that are inside leaves.
    """
    with _LOCK:
        _INSIDE.append(_INSIDE[0] if _INSIDE else torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        with _LOCK:
            before = _INSIDE.pop()
            if not _INSIDE:
                torch.backends.mha.set_fastpath_enabled(before)
