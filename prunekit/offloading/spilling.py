"""Tensors whose values lie in a file of a scratch folder, for as long as somebody asks for that."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunekit.files.disk import disk_faults
from prunekit.offloading.paging import relieve

PREFIX = "prunekit-offloaded-"
_SMALL = 2**16  # bytes: less is not worth a file
_FOLDER: ContextVar[Path | None] = ContextVar("prunekit-scratch", default=None)


@contextmanager
def files_in(folder: Path) -> Iterator[None]:
    """Within it ``in_file`` puts tensors into ``folder``."""
    token = _FOLDER.set(folder)
    try:
        yield
    finally:
        _FOLDER.reset(token)


def in_file(tensor: Tensor) -> Tensor:
    """``tensor``; within ``prunekit.offloaded`` an equal one, laid out alike, whose values lie in a file of scratch.

    The file has no name any more when this returns: it ends with the tensor, however the process ends. Raises
    CheckpointError where the disk is full.
    """
    folder = _FOLDER.get()
    if folder is None or tensor.device.type != "cpu" or tensor.nbytes < _SMALL:
        return tensor
    with disk_faults(folder, "the model is as it was"):
        handle, name = tempfile.mkstemp(prefix=PREFIX, dir=folder)
        try:
            os.posix_fallocate(handle, 0, tensor.nbytes)  # a full disk is told now, not by a signal in a later write
            storage: Any = torch.UntypedStorage.from_file(name, True, tensor.nbytes)
        finally:
            os.close(handle)
            os.unlink(name)
    new = torch.empty(0, dtype=tensor.dtype, device="cpu")
    new.set_(storage, 0, tensor.shape, torch.empty_like(tensor, device="meta").stride())
    new.copy_(tensor)
    relieve()
    return new


def copied(tensor: Tensor) -> Tensor:
    """A copy without a gradient; within ``prunekit.offloaded`` one in a file of scratch."""
    plain = tensor.detach()
    copy = in_file(plain)
    return plain.clone() if copy is plain else copy
