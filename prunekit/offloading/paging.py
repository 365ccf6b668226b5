"""Gives back the memory of pages that lie in files, whenever the process holds more than it may.

Advice to the system and nothing else: a page that is wanted again is read again, one that was written to is written
to its file first, or stays where it has none. So it is right at any moment, whatever the rest of the process does.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from torch.nn.modules.module import register_module_forward_hook

from prunekit.errors import InputError

_PAGEOUT = 21  # MADV_PAGEOUT, Linux 5.4
_WEIGHTS = (".safetensors", ".gguf", ".pt", ".pth", ".bin", ".dat")
_DELETED = " (deleted)"
_PAUSE = 0.01  # seconds between looks
_STEP = 2**25  # bytes that must have come since the last time: what cannot be given back is not asked for again


class Pager:
    """Looks at what the process holds, and asks for pages to go where it is too much."""

    def __init__(self, memory: int, scratch: Path) -> None:
        self.memory, self.scratch = memory, scratch
        self.advise, self.trim = _advice(), _trim()
        self.floor = 0
        self.one_at_a_time = threading.Lock()

    def __call__(self) -> None:
        with self.one_at_a_time:
            if resident() <= max(self.memory, self.floor + _STEP):
                return
            for start, length in _ranges(self.scratch):
                self.advise(start, length)
            self.trim()
            self.floor = resident()


_RELIEF: ContextVar[Callable[[], None]] = ContextVar("prunekit-relief", default=lambda: None)


def relieve() -> None:
    """What code that goes through many weights calls after each: a busy machine may not let the watching thread run."""
    _RELIEF.get()()


def memory_limit() -> int | None:
    """Bytes that the process is held to; None where it is not."""
    pager = _RELIEF.get()
    return pager.memory if isinstance(pager, Pager) else None


@contextmanager
def memory_held_to(memory: int, scratch: Path) -> Iterator[None]:
    """Holds the process to ``memory`` bytes as far as weights in files and tensors in ``scratch`` are what fills it.

    Raises InputError where the system takes no such advice.
    """
    pager = Pager(memory, scratch)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_PAUSE):
            pager()

    thread = threading.Thread(target=watch, name="prunekit-paging", daemon=True)
    thread.start()
    token = _RELIEF.set(pager)
    # a model that runs may read faster than the thread gives back
    hook = register_module_forward_hook(lambda *_: relieve())
    try:
        yield
    finally:
        hook.remove()
        _RELIEF.reset(token)
        ended.set()
        thread.join()


def resident() -> int:
    """Bytes of memory that the process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _advice() -> Callable[[int, int], object]:
    call = getattr(ctypes.CDLL(None, use_errno=True), "madvise", None) if sys.platform == "linux" else None
    probe = ctypes.create_string_buffer(3 * os.sysconf("SC_PAGE_SIZE"))
    page = os.sysconf("SC_PAGE_SIZE")
    start = -(-ctypes.addressof(probe) // page) * page
    if call is None or call(ctypes.c_void_p(start), ctypes.c_size_t(page), _PAGEOUT) != 0:
        raise InputError(
            "this system takes no advice on pages",
            where="offloaded",
            hint="Linux 5.4 or later does; elsewhere prune without prunekit.offloaded, in enough memory",
        )
    return lambda start, length: call(ctypes.c_void_p(start), ctypes.c_size_t(length), _PAGEOUT)


def _trim() -> Callable[[], object]:
    """What the allocator holds of tensors that are gone goes back too, where it is one that can be told so."""
    call = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return (lambda: None) if call is None else (lambda: call(ctypes.c_size_t(0)))


def _ranges(scratch: Path) -> list[tuple[int, int]]:
    """(start, length) of what is mapped of files of weights and of ``scratch``."""
    found = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            fields = line.rstrip("\n").split(maxsplit=5)
            name = fields[5].removesuffix(_DELETED) if len(fields) == 6 else ""
            if name.endswith(_WEIGHTS) or name.startswith(f"{scratch}/"):
                start, end = (int(part, 16) for part in fields[0].split("-"))
                found.append((start, end - start))
    return found
