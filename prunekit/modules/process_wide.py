"""What there is once for all threads of a process, and is other than usual while one of them needs it so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager


class ProcessWide:
    """``make()``, a context that changes what all threads see: the first that comes in opens it, the last closes it.

    Where each opened its own, two that overlap would put back what they found: the last one the other's change.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        self._make, self._lock, self._inside = make, threading.Lock(), 0
        self._opened: AbstractContextManager[object] | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> None:
        with self._lock:
            if self._opened is None:
                opened = self._make()
                opened.__enter__()
                self._opened = opened
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._opened is not None:
                opened, self._opened = self._opened, None
                opened.__exit__(None, None, None)
