"""Measuring the whole model."""

from __future__ import annotations

from typing import Any

from prunekit.recipes.stages import Evaluate
from prunekit.runs.job import Job
from prunekit.runs.under_way import UnderWay, counter, lean


def judge(job: Job, run: UnderWay, number: int, stage: Evaluate) -> dict[str, Any]:
    """The model's figures on the validation samples, kept under the stage's key."""
    progress = counter(job, number, stage.title, "samples")
    with lean(job, run.model):
        figures = job.ranks.decided(lambda: dict(run.evaluate(run.model, run.val, progress)))
    run.position.metrics[stage.key] = figures
    return figures
