"""SlimSAM's tables at 0.5, 0.77 and 0.9 of every width, on the teacher of benchmarks/teacher; hours, resumable.

    python -m benchmarks.slimsam_table --data ../shared/data --jobs 2
    python -m benchmarks.slimsam_table --data ../shared/data --jobs 2 --quick     # one ratio, short training

Every row is a `prunekit prune` command, once a seed. Records go to benchmarks/results one by one, so that a run that
is stopped goes on; the page in docs is written from them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.notes import note_on
from benchmarks.zoo.runner import write_atomically

from .page import Record, markdown
from .rows import FULL, GROUPS, QUICK, RATIOS, SEEDS, Row

TEACHER = Path("benchmarks/assets/tiny.safetensors")
LIBRARIES = ("torch", "segment-anything", "numpy", "prunekit")
SHARED = {"batch": 8, "accumulate": 1, "lr": 1e-3, "lr_schedule": "cosine", "latency": "false"}
QUICK_RATIO = 0.9


def command(data: Path, quick: bool) -> str:
    """What all rows share."""
    settings = " ".join(f"--set {name}={value}" for name, value in {**(QUICK if quick else FULL), **SHARED}.items())
    photos = f"--data {data}/imagenet1k-sample --val {data}/bsds500/val"
    return f"prunekit prune sam:tiny --checkpoint {TEACHER} {photos} {settings}"


def once(line: str, row: Row, ratio: float, seed: int, quick: bool) -> Record:
    """One command's figures."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        words = f"{line} {row.written(quick)} --ratio {ratio} --seed {seed}".split()[1:]
        whole = [sys.executable, "-m", "prunekit", *words, "--out", f"{folder}/slim", "--json"]
        answer = subprocess.run(whole, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if answer.returncode:
        raise SystemExit(f"{row.name} at {ratio}: {answer.stderr or answer.stdout}")
    report = json.loads(answer.stdout)
    scores = {name.removesuffix("_miou"): values for name, values in report["metrics"].items()}
    left = {name: report[name]["after"] / report[name]["before"] for name in ("params", "macs")}
    before = {metric: scores[metric]["before"] for metric in scores}
    after = {metric: scores[metric]["after"] for metric in scores}
    spent = round(time.monotonic() - started)
    return {"row": row.name, "ratio": ratio, "seed": seed, "seconds": spent, "before": before, **left, **after}


def asked_for(groups: list[str], ratios: list[float], seeds: list[int]) -> Iterator[tuple[Row, float, int]]:
    """The runs, such that a table that is cut short has all rows of a seed."""
    for seed in seeds:
        for group in groups:
            for ratio in ratios:
                for row in GROUPS[group]:
                    yield row, ratio, seed


def started(path: Path, line: str) -> dict[str, Any]:
    """The records so far. Those of another command do not count as one's own."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    versions = {name: version(name) for name in LIBRARIES}
    fresh: dict[str, Any] = {"command": line, "commit": commit, "versions": versions, "records": []}
    if not path.exists():
        return fresh
    told: dict[str, Any] = json.loads(path.read_text())
    if told["command"] != line:
        raise SystemExit(f"{path} holds the records of another command; move it away to start anew: {told['command']}")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="bsds500/ and imagenet1k-sample/")
    parser.add_argument("--jobs", type=int, default=1, help="commands at a time, one thread each")
    parser.add_argument("--quick", action="store_true", help=f"the criteria at {QUICK_RATIO}, one seed, short training")
    parser.add_argument("--groups", nargs="+", choices=tuple(GROUPS), default=None)
    parser.add_argument("--rows", nargs="+", default=None, help="no others, by their whole names")
    parser.add_argument("--ratios", nargs="+", type=float, default=None)
    parser.add_argument("--seeds", nargs="+", type=int, default=None)
    parser.add_argument("--render", action="store_true", help="write the page again from the records")
    given = parser.parse_args()
    name = "slimsam-table-quick" if given.quick else "slimsam-table"
    path, page = Path("benchmarks/results") / f"{name}.json", Path("docs") / f"{name}.md"
    line = command(given.data, given.quick)
    told = started(path, line)
    # "aligned" is for the quick table: the long one aligns for two epochs anyway
    groups = given.groups or (["criteria"] if given.quick else [group for group in GROUPS if group != "aligned"])
    ratios = given.ratios or ([QUICK_RATIO] if given.quick else list(RATIOS))
    seeds = given.seeds or ([0] if given.quick else list(SEEDS))
    done = {(r["row"], r["ratio"], r["seed"]) for r in told["records"]}
    wanted = set(given.rows or (row.name for group in groups for row in GROUPS[group]))
    runs = [run for run in asked_for(groups, ratios, seeds) if run[0].name in wanted]
    left = [run for run in runs if (run[0].name, *run[1:]) not in done]
    lock = threading.Lock()

    def run(task: tuple[Row, float, int]) -> None:
        record = once(line, *task, given.quick)
        with lock:
            told["records"].append(record)
            write_atomically(path, json.dumps(told, indent=1) + "\n")
            write_atomically(page, markdown(told, given.quick) + note_on(page))

    if not given.render:
        with ThreadPoolExecutor(given.jobs) as pool:
            list(pool.map(run, left))
    write_atomically(page, markdown(told, given.quick) + note_on(page))


if __name__ == "__main__":
    main()
