"""Keeps Python's garbage collector from walking a trace while it is being made."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

from prunekit.modules.process_wide import ProcessWide


@ProcessWide
@contextlib.contextmanager
def paused_collector() -> Iterator[None]:
    """Inside the context no cyclic garbage is collected.

    A trace makes hundreds of thousands of objects that all live on; the collector would walk them again and again,
    for a third of the time that pruning takes.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
