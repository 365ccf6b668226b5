"""A sign of life: what a command is doing, on the standard error, while it would otherwise say nothing.

Importing torch takes seconds, building a large model minutes, and one step on it longer than that; someone at a
terminal, and someone who reads a pipe, should know that it is not stuck. One thread a command watches for silence.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console

AT_ONCE, AGAIN = 0.4, 0.5  # seconds of silence before a line is drawn on a terminal, and between two drawings of it
FIRST, LONGEST = 3.0, 60.0  # of silence before a line goes to a pipe; it doubles, so that a log of hours stays short
LOADING, WORKING = "loading torch", "working"
_WIPE = "\r\x1b[2K"


class Pulse:
    """What is being done, when something was said last, and how many displays draw for themselves."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._step = ""
        self._displays = 0
        self._drawn: TextIO | None = None
        self._reset()

    def _reset(self) -> None:
        self._spoken = self._begun = time.monotonic()
        self._patience = FIRST

    def noted(self) -> None:
        """Something is about to be said: a line that stands for the silence goes, and a new silence begins."""
        with self._lock:
            self._clear()
            self._spoken = time.monotonic()

    @contextmanager
    def about(self, what: str, *, drawn: bool = False) -> Iterator[None]:
        """Within the block ``what`` is being done; ``drawn``: a display shows that by itself."""
        self.noted()
        with self._lock:
            outer, self._step = self._step, what
            self._displays += drawn
            self._reset()
        try:
            yield
        finally:
            with self._lock:
                self._step = outer
                self._displays -= drawn
                self._reset()

    def step(self, what: str) -> None:
        """What is being done from now on, until it is said again or the block that it is done in ends."""
        with self._lock:
            if what != self._step:
                self._step, self._begun = what, time.monotonic()

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Within the block silence is filled."""
        ended = threading.Event()
        with self._lock:
            self._reset()
        thread = threading.Thread(target=self._watch, args=(ended, sys.stderr), name="pulse", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._step = ""
            self.noted()

    def _watch(self, ended: threading.Event, stream: TextIO) -> None:
        redraws = stream.isatty() and os.environ.get("TERM") != "dumb"
        while not ended.wait(AGAIN if self._drawn else AT_ONCE / 2):
            with self._lock:
                silent = time.monotonic() - self._spoken
                if not self._displays and silent >= (AT_ONCE if redraws else self._patience):
                    self._say(stream, redraws)

    def _say(self, stream: TextIO, redraws: bool) -> None:
        line = f"{self._step or _idle()}, {time.monotonic() - self._begun:.0f} s"
        try:
            stream.write(f"{_WIPE}{line[: _columns() - 1]}" if redraws else f"{line} so far\n")
            stream.flush()
        except (OSError, ValueError):  # nobody reads there any more, or it is closed: the command goes on
            return
        if redraws:
            self._drawn = stream
        else:
            self._spoken, self._patience = time.monotonic(), min(2 * self._patience, LONGEST)

    def _clear(self) -> None:
        if self._drawn is not None:
            self._drawn.write(_WIPE)
            self._drawn.flush()
            self._drawn = None


def _idle() -> str:
    """What nobody said: whoever imports a module for the first time waits for torch."""
    spec = getattr(sys.modules.get("torch"), "__spec__", None)
    return WORKING if spec is not None and not getattr(spec, "_initializing", False) else LOADING


def _columns() -> int:
    try:
        return os.get_terminal_size(2).columns or 80
    except OSError:
        return 80


PULSE = Pulse()


class Speaking(Console):
    """A console whose every word ends a silence."""

    def print(self, *objects: Any, **how: Any) -> None:
        PULSE.noted()
        super().print(*objects, **how)
