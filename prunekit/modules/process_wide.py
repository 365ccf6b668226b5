"""What there is once for all threads of a process, and is other than usual while one of them needs it so."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

PATIENCE = 2.0  # seconds


class ProcessWide:
    """``make()``, a context that changes what all threads see: the first that comes in opens it, the last closes it.

    Where each opened its own, two that overlap would put back what they found: the last one the other's change.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        # an interrupt in here may leave the lock to this thread, which comes again, and open what nobody is in
        self._make, self._lock = make, threading.RLock()
        self._inside: weakref.WeakSet[object] = weakref.WeakSet()
        self._opened: AbstractContextManager[object] | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        who = _Someone()
        try:
            self.enter(who)
            yield
        finally:
            self.leave(who)

    def enter(self, who: object) -> None:
        with self._alone():
            if not self._inside:
                self._close()
                opened = self._make()
                opened.__enter__()
                self._opened = opened
            self._inside.add(who)

    def leave(self, who: object) -> None:
        """Of one that did not come in, because that failed or was interrupted, too."""
        with self._alone():
            self._inside.discard(who)
            if not self._inside:
                self._close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        lock = self._lock
        held = lock.acquire(timeout=PATIENCE)
        if not held:  # nothing in here takes so long: an interrupt has left it to a thread that is elsewhere by now
            self._lock = threading.RLock()
        try:
            yield
        finally:
            if held:
                lock.release()

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.__exit__(None, None, None)
            self._opened = None


class _Someone:
    """Who is inside. Not an object(), to which there are no weak references."""
