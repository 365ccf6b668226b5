"""A command in a terminal of its own: how long it takes, how long it says nothing, and how busy it was meanwhile."""

import os
import pty
import select
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass

import psutil

LOOK = 0.2  # seconds between two looks


@dataclass(frozen=True)
class Watched:
    """``silence`` is the longest time without output, in seconds, ``silent_cpu`` what it computed meanwhile."""

    code: int
    seconds: float
    silence: float
    silent_cpu: float
    after: str
    output: str


def watched(command: list[str], folder: str, environment: dict[str, str], limit: float) -> Watched:
    """Runs ``command``; it is ended after ``limit`` seconds."""
    terminal, theirs = pty.openpty()
    ends = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **ends)
    os.close(theirs)
    child = process.pid
    started = spoken = time.monotonic()
    cpu, longest, text = 0.0, (0.0, 0.0, ""), ""
    while True:
        ready, _, _ = select.select([terminal], [], [], LOOK)
        now = time.monotonic()
        if ready:
            try:
                read = os.read(terminal, 65536)
            except OSError:  # the terminal is gone with the last process in it
                break
            if not read:
                break
            longest = max(longest, (now - spoken, _cpu_of(child) - cpu, text[-200:]))
            text += read.decode(errors="replace")
            spoken, cpu = now, _cpu_of(child)
        if now - started > limit:
            os.killpg(child, signal.SIGKILL)
            break
    code = process.wait()
    ended = time.monotonic()
    longest = max(longest, (ended - spoken, 0.0, text[-200:]))  # what it computed is gone with it
    os.close(terminal)
    last = longest[2].strip().splitlines()[-1:] or [""]
    return Watched(code, ended - started, longest[0], longest[1], last[0], text)


def _cpu_of(pid: int) -> float:
    """CPU seconds of a process and everything below it, those that ended included."""
    total = 0.0
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            with suppress(psutil.Error):
                total += sum(each.cpu_times()[:4])
    return total
