"""What is compared: the plans of the shared zoo, and ten settings of the recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.zoo.rows import read_rows

SMALL = ["images=8", "train_images=16", "val_images=4", "epochs=8", "steps=20", "batch=2", "latency=false"]
RUNS: dict[str, str] = {
    "slimsam": "--recipe slimsam",
    "slimsam, global, a target": "--recipe slimsam-global --target macs<=60%",
    "slimsam, uniform, refitted": "--recipe slimsam-uniform --set compensate=ridge --ratio 0.3",
    "slimsam, one step, by Taylor's control": "--recipe slimsam-onestep --scorer output_taylor",
    "slimsam, ablated": "--recipe slimsam --set alpha=linear,constant --set without=embedding --seed 3",
    "slimsam, from scratch": "--recipe slimsam --set scratch=true --scorer random",
    "oneshot": "sam:nano --recipe oneshot --scorer magnitude --ratio mlp.hidden=0.5,embedding=0.25",
    "iterative": "sam:nano --recipe iterative --set prune_steps=3 --set schedule=linear --exclude blocks.0.*",
    "isomorphic": "sam:nano --recipe isomorphic --scorer magnitude",
    "growing": "sam:nano --recipe growing --set lr_schedule=cosine --set accumulate=2",
}


def items(zoo: Path) -> list[dict[str, Any]]:
    """Every item: its name, its kind and what the worker needs. Raises ListError where there is no zoo."""
    rows = [row for heavy in (False, True) for row in read_rows(zoo, "", heavy) if not row.skipped]
    plans = [
        {"kind": "plan", "name": row.name, "entry": row.entry, "builder": str(zoo.with_name("zoo.py"))} for row in rows
    ]
    return plans + [{"kind": "run", "name": name, "arguments": arguments(text)} for name, text in RUNS.items()]


def arguments(text: str) -> list[str]:
    """The command's words for a run of 20 steps a stage; a setting that a recipe lacks is not set."""
    trains = "oneshot" not in text
    kept = [pair for pair in SMALL if trains or not pair.startswith(("train_images", "epochs", "steps", "batch"))]
    return [*text.split(), *(word for pair in kept for word in ("--set", pair))]
