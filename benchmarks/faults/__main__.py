"""``python -m benchmarks.faults``: a line a section, and the totals; ``FAULTS=large`` for the recorded run."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sys
import tempfile
import time
import warnings
from dataclasses import asdict
from pathlib import Path

import torch

import prunekit
from benchmarks.faults import arguments, files, folders, kills, transactions
from benchmarks.faults.counting import KINDS

# name: what runs it, attempts of a quick run, attempts of the recorded one
SECTIONS = {
    "transactions": (transactions.transactions, 100, 3200),
    "folders": (folders.saved_folders, 150, 4000),
    "files": (files.files, 140, 3500),
    "data": (files.annotated_data, 120, 3000),
    "tables": (files.tables, 50, 500),
    "functions": (arguments.api_arguments, 100, 10_000),
    "commands": (arguments.command_arguments, 60, 10_000),
    "kills": (kills.kills, 8, 60),
}


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults")
    parser.add_argument("--only", default="", help="sections, with commas: " + ", ".join(SECTIONS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the attempts of the recorded run")
    parser.add_argument("--out", type=Path, help="file for the counts, as JSON; what it holds of other sections stays")
    asked = parser.parse_args(given)
    large = os.environ.get("FAULTS") == "large"
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    done = []
    for name in asked.only.split(",") if asked.only else SECTIONS:
        run, few, many = SECTIONS[name]
        started = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            section = run(max(1, int(many * asked.share)) if large else few, asked.seed, Path(folder) / name)
        done.append((name, section))
        sys.stdout.write(section.line() + "\n")
        sys.stdout.flush()
        if asked.out:
            _record(asked.out, name, {**asdict(section), "cpu_seconds": round(time.process_time() - started, 1)})
    totals = ", ".join(f"{kind} {sum(getattr(section, kind) for _, section in done)}" for kind in KINDS)
    sys.stdout.write(f"{totals} of {sum(section.tried for _, section in done)}\n")
    return int(any(section.failed for _, section in done))


def _record(out: Path, name: str, counts: dict) -> None:
    told = json.loads(out.read_text()) if out.is_file() else {}
    told["command"] = "FAULTS=large python -m benchmarks.faults --out docs/reliability.json"
    told["versions"] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "prunekit": prunekit.__version__,
    }
    told.setdefault("sections", {})[name] = counts
    told["totals"] = {kind: sum(each[kind] for each in told["sections"].values()) for kind in ("tried", *KINDS)}
    out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
