"""What became of attempts, counted: lost, silently wrong, a traceback, a hang; and the first of each with its seed."""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field

from prunekit.errors import PrunekitError

KINDS = ("lost", "silent", "tracebacks", "hangs")


class Hang(BaseException):
    """Raised by a clock in whatever takes too long."""


@dataclass
class Section:
    """One kind of attempt. ``right`` and ``refused`` are as it should be, the rest is not."""

    name: str
    seed: int = 0
    tried: int = 0
    right: int = 0
    refused: int = 0
    lost: int = 0
    silent: int = 0
    tracebacks: int = 0
    hangs: int = 0
    first: dict[str, str] = field(default_factory=dict)

    def count(self, kind: str, label: str = "") -> None:
        self.tried += 1
        setattr(self, kind, getattr(self, kind) + 1)
        if kind in KINDS:
            self.first.setdefault(kind, label)

    def attempt(self, call: Callable[[], object], label: str, *, right=lambda value: True, seconds: int = 30) -> None:
        """Runs ``call``: done, refused by a typed error, or counted as what it must not be."""
        try:
            with within_seconds(seconds):
                value = call()
        except PrunekitError:
            self.count("refused")
        except Hang:
            self.count("hangs", label)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            self.count("tracebacks", f"{label}: {type(error).__name__}: {error} at {last.filename}:{last.lineno}"[:400])
        else:
            self.count("right" if right(value) else "silent", label)

    @property
    def failed(self) -> bool:
        return any(getattr(self, kind) for kind in KINDS)

    def line(self) -> str:
        bad = ", ".join(f"{kind} {getattr(self, kind)}" for kind in KINDS)
        told = f"{self.name:24s} {self.tried:6d} tried, {self.right} right, {self.refused} refused, {bad}"
        return f"{told} (seed {self.seed})" + "".join(f"\n    first {kind}: {at}" for kind, at in self.first.items())


@contextmanager
def within_seconds(seconds: int):
    """Raises Hang in the block after that time; in the main thread only, where the clock can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
