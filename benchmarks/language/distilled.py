"""A cut model, refitted and then distilled on logits: the recipe ``minitron``, as a user would run it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from prunekit.recipes.minitron import MINITRON
from prunekit.registry import Built
from prunekit.runs import run
from prunekit.scorers import Scorer

STEPS = 300
SETTINGS: Mapping[str, Any] = {
    "compensate": "ridge",
    "steps": STEPS,
    "batch": 1,
    "accumulate": 1,
    "lr_schedule": "cosine",
    "val_images": 8,
    "teacher_cache": "off",  # no window is seen twice
    "latency": False,
    "verify": "shapes",
}


def distilled(built: Built, text: str, level: float, scorer: Scorer, *, windows: int, lr: float) -> nn.Module:
    """``built.model``, cut in place until ``level`` of all parameters is gone, and trained for 300 windows.

    Scores and refit see ``windows`` windows of ``text``, training the first 300 of it and what comes after.
    """
    recipe = replace(MINITRON, settings={**MINITRON.settings, **SETTINGS, "images": windows, "lr": lr})
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "train.txt"
        file.write_text(text)
        run(built, recipe, scorer, data=file, target=f"params<={100 - 100 * level:g}%", roles=["mlp.hidden"])
    return built.model
