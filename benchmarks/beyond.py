"""What the paper does not have, on the bundled SAM: refitting before aligning, and a budget for each role.

    python -m benchmarks.beyond --jobs 2 --out docs/slimsam-beyond.json     # .md is written beside it

Rows that the file has are not run again: remove it to start anew. Every row is a `prunekit prune` command at nearly the
same multiply-adds (within 3 %), with and without its two distillations, once a seed. Mean IoU of 48 generated scenes
that no stage reads, with one point and with one box.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.zoo.runner import write_atomically

SEEDS = (0, 1, 2)
COMMON = "prunekit prune sam:nano --recipe slimsam --set train_images=240 --set latency=false"
# The second and third budget take from attention and MLP what they leave to the embedding, which all blocks share.
ROWS = {
    "one ratio": "--ratio 0.75",
    "one ratio, random": "--ratio 0.75 --scorer random",
    "refit": "--ratio 0.75 --set compensate=ridge-in-order",
    "refit, random": "--ratio 0.75 --set compensate=ridge-in-order --scorer random",
    "wider embedding": "--ratio embedding=0.625,attention.head_dim=0.8125,mlp.hidden=0.8125",
    "widest embedding": "--ratio embedding=0.5,attention.head_dim=0.85,mlp.hidden=0.85",
    "wider embedding, refit": "--ratio embedding=0.625,attention.head_dim=0.8125,mlp.hidden=0.8125 "
    "--set compensate=ridge-in-order",
}
TRAINED = {"cut only": "--set distill=false", "distilled": ""}
Record = dict[str, Any]


def once(task: tuple[str, str, int]) -> Record:
    """One command's figures."""
    row, trained, seed = task
    words = f"{COMMON} {ROWS[row]} {TRAINED[trained]} --seed {seed}".split()[1:]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "prunekit", *words, "--out", f"{folder}/slim", "--json"]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        answer = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    report = json.loads(answer.stdout)
    after = {name: values["after"] for name, values in report["metrics"].items()}
    before = {name: values["before"] for name, values in report["metrics"].items()}
    macs = report["macs"]["after"] / report["macs"]["before"]
    return {"row": row, "trained": trained, "seed": seed, "macs": macs, "before": before, **after}


def markdown(records: Sequence[Record]) -> str:
    """docs/slimsam-beyond.md."""
    before = records[0]["before"]
    lines = [
        "# Beyond the paper",
        "",
        "What `slimsam` can be given that the paper does not have, on the bundled `sam:nano` and generated scenes: a",
        "model of 1 M parameters says which way things go, not what real SAM would gain.",
        "",
        "    python -m benchmarks.beyond --jobs 2 --out docs/slimsam-beyond.json",
        "",
        f"Mean IoU with one point / one box, {len(SEEDS)} seeds, mean ± half the range. Unpruned "
        + " / ".join(f"{value:.3f}" for value in before.values())
        + ". *Cut only*: both cuts, no distillation.",
        "",
        "| row | MACs left | cut only | distilled | options |",
        "|---|---|---|---|---|",
    ]
    for row, options in ROWS.items():
        own = [r for r in records if r["row"] == row]
        cells = [_cell([r for r in own if r["trained"] == trained], tuple(before)) for trained in TRAINED]
        lines.append(f"| {row} | {statistics.mean(r['macs'] for r in own):.3f} | {' | '.join(cells)} | `{options}` |")
    lines += ["", f"Every row: `{COMMON} OPTIONS --seed N`.", "", "Distilled, against *one ratio*, seed by seed:", ""]
    for row in list(ROWS)[1:]:
        parts = [f"{name} {', '.join(f'{gain:+.3f}' for gain in _gains(records, row, name))}" for name in before]
        lines.append(f"- {row}: {'; '.join(parts)}")
    return "\n".join([*lines, "", *_regained(records, before), ""])


def _regained(records: Sequence[Record], names: Iterable[str]) -> list[str]:
    """How much of what the first row loses against the unpruned model each other row does not lose."""
    first, distilled = next(iter(ROWS)), [r for r in records if r["trained"] == "distilled"]

    def loss(row: str, name: str) -> float:
        return statistics.mean(r["before"][name] - r[name] for r in distilled if r["row"] == row)

    lines = [f"Of what *{first}* loses against the unpruned model, this much is not lost (means of the seeds):", ""]
    for row in [row for row in ROWS if row != first]:
        shares = [1 - loss(row, name) / loss(first, name) for name in names]
        lines.append(f"- {row}: {' / '.join(f'{share:.0%}' for share in shares)}")
    return lines


def _gains(records: Sequence[Record], row: str, name: str) -> list[float]:
    """What ``row`` scores more than the first row, once a seed: every seed has scenes of its own."""
    found = {(r["row"], r["seed"]): r[name] for r in records if r["trained"] == "distilled"}
    return [found[row, seed] - found[next(iter(ROWS)), seed] for seed in SEEDS]


def _cell(own: Sequence[Record], names: Sequence[str]) -> str:
    def told(values: Sequence[float]) -> str:
        return f"{statistics.mean(values):.3f} ± {(max(values) - min(values)) / 2:.3f}"

    return " / ".join(told([r[name] for r in own]) for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="commands at a time, one thread each")
    parser.add_argument("--out", type=Path, default=Path("docs/slimsam-beyond.json"), help=".md is written beside it")
    parser.add_argument("--render", action="store_true", help="write the .md again from the .json")
    given = parser.parse_args()
    if not given.render:
        records = json.loads(given.out.read_text()) if given.out.exists() else []
        done = {(r["row"], r["trained"], r["seed"]) for r in records}
        left = [task for task in product(ROWS, TRAINED, SEEDS) if task not in done]
        with ThreadPoolExecutor(given.jobs) as pool:
            for record in pool.map(once, left):
                records.append(record)
                write_atomically(given.out, json.dumps(records, indent=1) + "\n")
    write_atomically(given.out.with_suffix(".md"), markdown(json.loads(given.out.read_text())))


if __name__ == "__main__":
    main()
