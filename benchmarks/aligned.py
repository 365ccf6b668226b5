"""``python -m benchmarks.aligned``: what widths that kernels like bring, at one target in multiply-adds.

Each model is pruned to 60 % of its multiply-adds three times: with ``align`` at its default, at 1 and at ``auto``. The
three run in turn with the original on one thread; every time is divided by the mean of the original's around it. Told
is the median of those ratios with its quartiles.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import statistics
import sys
import warnings
from typing import Any

import torch
from torch import nn

import prunekit
from benchmarks.latency_targets import MODELS, example, in_turn

TARGET = "macs<=60%"
CHOICES: dict[str, Any] = {"default": None, "1": 1, "auto": "auto"}


def row(name: str, pairs: int) -> dict[str, Any]:
    """One model: for each choice the share of its multiply-adds, its latency and what the report says of ``auto``."""
    torch.manual_seed(0)
    model, x = MODELS[name]().eval(), example(name)
    found: dict[str, Any] = {"model": name}
    small: dict[str, nn.Module] = {}
    for choice, align in CHOICES.items():
        small[choice] = copy.deepcopy(model)
        asked: dict[str, Any] = {"align": align, "scorer": prunekit.Magnitude(), "verify": "shapes"}
        report = prunekit.prune(small[choice], x, target=TARGET, **asked).report
        found[choice] = {"macs": round(report.macs["after"] / report.macs["before"], 4), "notes": report.notes}
    ratios: dict[str, list[float]] = {choice: [] for choice in CHOICES}
    for _ in range(4):  # in quarters, so that a slow minute meets all three
        for choice, pruned in small.items():
            ratios[choice] += in_turn(model, pruned, x, pairs // 4)
    for choice, each in ratios.items():
        low, middle, high = (round(q, 4) for q in statistics.quantiles(each, n=4))
        found[choice] |= {"latency": middle, "quartiles": [low, high]}
    return found


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--only", default="", help="part of a model's name")
    ask.add_argument("--pairs", type=int, default=40)
    given = ask.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for name in [name for name in MODELS if given.only in name]:
        sys.stdout.write(json.dumps(row(name, given.pairs)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
