"""A calibration sample that a model cannot be run on is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prunekit.errors import InputError, PrunekitError


@contextmanager
def sample_named(number: int, of: str = "calibration sample") -> Iterator[None]:
    """Inside: what forward raises on sample ``number`` is an InputError that says which; out of memory stays."""
    try:
        yield
    except (PrunekitError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        told = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"the model cannot be run on it: {type(error).__name__}: {told}",
            where=f"{of} {number}",
            hint="pass data= in the form of the example inputs",
        ) from error
