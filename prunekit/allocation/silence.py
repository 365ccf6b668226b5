"""No words of compiled code on the standard output."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator


@contextlib.contextmanager
def silent_output() -> Iterator[None]:
    """Inside, what compiled code prints is dropped.

    HiGHS prints a line for some programs whatever it is told ("transformNewIntegerFeasibleSolution"), which would
    stand in the middle of a command's JSON. What other threads print meanwhile is dropped too.
    """
    try:
        kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # there is no standard output to keep clean
        yield
        return
    flush = getattr(ctypes.CDLL(None), "fflush", None)
    try:
        _flushed(flush)
        os.dup2(nowhere, 1)
        yield
    finally:
        _flushed(flush)  # C's own buffer, before the real output is there again
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _flushed(flush: ctypes._CFunctionType | None) -> None:
    if flush is not None:
        flush(None)
