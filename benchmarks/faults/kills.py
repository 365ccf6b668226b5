"""Runs that are killed where they stand: what goes on from them ends at the same bits, and nothing of others goes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import torch

from benchmarks.faults.counting import Section
from benchmarks.faults.tiny import STEPS, tiny_run
from prunekit.runs.stopping import Stopped

PATIENCE = 120  # seconds that a child may take


def kills(count: int, seed: int, folder: Path) -> Section:
    """``count`` processes, each killed by SIGKILL or stopped by SIGTERM at a place drawn by the seed."""
    section, draw, threads = Section("kills of a run", seed), random.Random(seed), torch.get_num_threads()
    torch.set_num_threads(1)  # the count of threads is an order of sums, and a forked process has none of them
    try:
        _killed(section, count, draw, folder / "run")
    finally:
        torch.set_num_threads(threads)
    return section


def _killed(section: Section, count: int, draw, place: Path) -> None:
    wanted = tiny_run().model.state_dict()
    killed = 0
    while killed < count:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        (place / "mine.txt").write_text("notes")
        for _ in range(draw.randint(1, 3)):
            at, kind = draw.uniform(0, 1), draw.choice(["event", "line", "stop"])
            section.count(*_in_a_child(place, kind, at))
            killed += 1
        again = tiny_run(place)
        found = again.model.state_dict()
        same = found.keys() == wanted.keys() and all(torch.equal(value, found[name]) for name, value in wanted.items())
        section.count("right" if same else "silent", f"resumed after kill {killed}")
        mine = (place / "mine.txt").is_file() and (place / "mine.txt").read_text() == "notes"
        section.count("right" if mine else "lost", f"a user's file after kill {killed}")


def _in_a_child(place: Path, kind: str, at: float) -> tuple[str, str]:
    """A run in a forked process that ends in the middle; what to count."""
    child = os.fork()
    if not child:
        code = 1
        try:
            _end(place, kind, at)
        except Stopped:
            code = 143
        finally:
            os._exit(code)
    label, limit = f"{kind} at {at:.3f}", time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            ended = os.waitstatus_to_exitcode(status)
            return ("right" if ended in (-signal.SIGKILL, 143, 0) else "tracebacks"), label
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hangs", label


def _end(place: Path, kind: str, at: float) -> None:
    asked, events = [], int(at * (STEPS + 3))

    def listen(event):
        asked.append(event)
        if kind == "event" and len(asked) > events:
            os.kill(os.getpid(), signal.SIGKILL)

    if kind == "line":  # within the writing of a state: at any moment of it
        before = os.fsync
        left = [int(at * 3 * (STEPS + 2))]

        def fsync(handle):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            before(handle)

        os.fsync = fsync
    tiny_run(place, listen, stop=lambda: kind == "stop" and len(asked) > events)
    os._exit(0)
