"""What a run keeps for people to look at, and nothing else reads: scores about the cut, losses step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from prunekit.planning.width_drafts import Draft
from prunekit.samples.tasks import Samples

POINTS = 41  # of a curve of scores: what a drawing a few centimetres wide can show
STEPS = 400  # of a curve of losses at most; beyond, every other point goes


@dataclass
class Told:
    """``scores``: sorted scores by group, see ``score_curves``. ``losses``: [step, loss, rate] by stage."""

    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    losses: dict[str, list[list[float]]] = field(default_factory=dict)

    def heard(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        """Notes the loss of one step; of a long stage, evenly thinned."""
        if "loss" not in figures:
            return
        points = self.losses.setdefault(stage, [])
        points.append([step, _digits(figures["loss"]), _digits(figures.get("lr", 0.0))])
        if len(points) > STEPS:
            del points[-2::-2]

    def values(self) -> dict[str, Any]:
        """JSON values."""
        return {"scores": self.scores, "losses": self.losses}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Told:
        return cls(dict(values.get("scores", {})), dict(values.get("losses", {})))


def score_curves(made: Draft, stage: str) -> dict[str, dict[str, Any]]:
    """For every group that shrinks: its scores in ascending order, as quantiles, and where the cut fell among them."""
    scores = getattr(made.scorer, "scores", {})
    found = {}
    for width in made.plan.widths:
        if width.group not in scores or width.after == width.before:
            continue
        values = scores[width.group].detach().double().cpu().flatten()
        kept = torch.zeros(values.numel(), dtype=torch.bool, device="cpu")
        kept[list(width.kept)] = True
        places = torch.linspace(0, values.numel() - 1, min(POINTS, values.numel()), device="cpu").round().long()
        found[width.group] = {
            "curve": [_digits(value) for value in values.sort().values[places].tolist()],
            "least_kept": _digits(float(values[kept].min())) if bool(kept.any()) else None,
            "most_removed": _digits(float(values[~kept].max())),
            "units": values.numel(),
            "kept": int(kept.sum()),
            "stage": stage,
        }
    return found


def samples_said(train: Samples, val: Samples) -> dict[str, Any]:
    """How many samples there were of either kind, and whether they were generated."""
    return {
        "train": {"count": len(train), "generated": train.generated},
        "val": {"count": len(val), "generated": val.generated},
    }


def _digits(value: float) -> float:
    return float(f"{value:.4g}")
