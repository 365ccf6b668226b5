"""No words of compiled code on the standard output."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator

_ONE_AT_A_TIME = threading.Lock()  # two that overlap would put the silence back as the output


@contextlib.contextmanager
def silent_output() -> Iterator[None]:
    """Inside, what compiled code prints is dropped.

    HiGHS prints a line for some programs whatever it is told ("transformNewIntegerFeasibleSolution"), which would
    stand in the middle of a command's JSON. What other threads print meanwhile is dropped too.
    """
    with _ONE_AT_A_TIME:
        try:
            kept = os.dup(1)
        except OSError:  # there is no standard output to keep clean
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            _flush()
            os.dup2(nowhere, 1)
            yield
        finally:
            _flush()  # C's own buffer, before the real output is there again
            os.dup2(kept, 1)
            os.close(kept)
            os.close(nowhere)


def _flush() -> None:
    if os.name == "posix":  # elsewhere C has several buffers, and none can be named
        ctypes.CDLL(None).fflush(None)
