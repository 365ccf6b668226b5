"""Runs rows in processes of their own, with limits on time and memory."""

from __future__ import annotations

import json
import os
import queue
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from benchmarks.zoo.row import STAGE
from benchmarks.zoo.rows import Row
from benchmarks.zoo.tools import Record

ROOT = Path(__file__).resolve().parents[2]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


@dataclass(frozen=True)
class Limits:
    """For one row and one tool: CPU seconds, seconds on the clock, and MB of resident memory."""

    cpu: int = 240
    wall: int = 900
    memory: int = 10_000


def run_row(tool: str, path: Path, name: str, limits: Limits, core: int | None = None) -> Record:
    """The record of one row; a process that crashes or passes a limit is a failed row that says so."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as noise:
        command = [sys.executable, "-m", "benchmarks.zoo.row", tool, str(path.resolve()), name]
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=noise, env={**os.environ, **ONE_THREAD})
        # set from here: a preexec_fn is not safe in a process that has threads
        resource.prlimit(process.pid, resource.RLIMIT_CPU, (limits.cpu, limits.cpu + 5))
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        stopped = _watch(process, limits)
        out.seek(0)
        lines = out.read().decode(errors="replace").splitlines()
        noise.seek(0)
        last = noise.read().decode(errors="replace").strip().splitlines()[-1:]
    told = [line for line in lines if line.startswith('{"')]
    if told and not stopped:
        return dict(json.loads(told[-1]))
    stage = next((line.removeprefix(STAGE) for line in reversed(lines) if line.startswith(STAGE)), "start")
    return {"status": "failed", "stage": stage, "error": stopped or _death(process.returncode, last, limits)}


def _watch(process: subprocess.Popen[bytes], limits: Limits) -> str:
    """Waits for a process; ends it where it passes a limit and says which."""
    start = time.monotonic()
    while process.poll() is None:
        reason = ""
        if time.monotonic() - start > limits.wall:
            reason = f"passed {limits.wall} seconds on the clock"
        elif _resident(process.pid) > limits.memory:
            reason = f"passed {limits.memory} MB of memory"
        if reason:
            process.kill()
            process.wait()
            return reason
        time.sleep(0.02)
    return ""


def _resident(pid: int) -> int:
    """Resident memory in MB. The address space says nothing: torch reserves far more than it uses."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() >> 20
    except (OSError, IndexError):  # it has just ended
        return 0


def _death(code: int, last: list[str], limits: Limits) -> str:
    if code == -signal.SIGXCPU:
        return f"passed {limits.cpu} CPU seconds"
    what = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    return f"the process ended by {what}" + (f": {last[0][:300]}" if last else "")


def run_rows(
    rows: Sequence[Row], tools: Mapping[str, Limits], path: Path, jobs: int, done: Mapping[str, Record]
) -> Iterator[tuple[Row, Record]]:
    """Rows as they end, each as tool -> record. What ``done`` holds is not run again.

    The tools of a row run one after the other on one core, so that their times can be compared.
    """
    cores: queue.Queue[int] = queue.Queue()
    own = sorted(os.sched_getaffinity(0))
    for at in range(jobs):
        cores.put(own[at % len(own)])

    def all_tools(row: Row) -> Record:
        found = dict(done.get(row.name, {}))
        core = cores.get()
        try:
            for tool in [t for t in tools if t not in found]:
                found[tool] = run_row(tool, path, row.name, tools[tool], core)
        finally:
            cores.put(core)
        return found

    wanted = [row for row in rows if tools.keys() - done.get(row.name, {}).keys()]
    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(all_tools, row): row for row in wanted}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        finally:  # an interrupted run ends with the rows that have begun
            pool.shutdown(cancel_futures=True)


def write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(text)
    part.replace(path)
