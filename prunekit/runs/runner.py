"""Running a recipe: its stages in order over one model, and what there is to say about it afterwards."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from prunekit.options import Options
from prunekit.recipes.stages import Distil, Recipe
from prunekit.registry.building import Built
from prunekit.runs.finishing import finished
from prunekit.runs.job import Job
from prunekit.runs.keeping import locked
from prunekit.runs.outcome import Listener, Run
from prunekit.runs.preparing import begun
from prunekit.runs.stages import DOES
from prunekit.runs.stopping import Asked, Stopped
from prunekit.runs.under_way import keep
from prunekit.scorers import Scorer


def run(
    built: Built,
    recipe: Recipe,
    scorer: Scorer,
    *,
    data: Path | None = None,
    val: Path | None = None,
    device: str | torch.device = "cpu",
    listen: Listener | None = None,
    folder: Path | None = None,
    resume: bool = False,
    stop: Asked = lambda: False,
    options: Options | None = None,
    **keywords: Any,
) -> Run:
    """Run ``recipe`` on ``built.model``, in place.

    Args:
        data, val: folders of training and validation samples; None generates them, each from its own stream. With the
            setting ``split``, both come from ``data``, and what ``prunekit.samples`` calls its test part is not read.
        listen: hears of progress.
        folder: where the run is kept while it is under way, after every stage and every ``save_minutes``; the caller
            removes it when the result is safe. One run at a time: it is locked.
        resume: go on with the run that ``folder`` holds, if there is one. Weights, settings and data must be the same;
            on a CPU the result is then equal to that of an undisturbed run, bit for bit.
        stop: asked between steps; once it says so the run is kept as it stands and raises ``Stopped``.
        options, keywords: as for ``prunekit.prune``: ratio, target, include, exclude. What is a setting of the recipe
            too is taken from there; ``runs/goals.py`` says how stages share a ratio or a target. Steps, a schedule,
            ``on_step``, free outputs and a latency table are refused: stages say the first, and none uses the others.

    Launched by torchrun or ``accelerate launch`` on several ranks, rank 0 decides what is cut and every rank trains on
    its part of each batch. A run may be gone on with on another number of ranks that share a batch of the same size.

    Raises PrunekitError where another rank has ended, InputError for a ratio out of range, DataError for unusable folders, RecipeError for a recipe that does not
    fit the model, a folder in use and a loss, gradient or weight that is not finite, CheckpointError where the disk
    refuses. A cut is made whole or not at all; training that fails leaves the last weights that were finite.
    """
    asked = (options or Options()).replaced(**keywords, scorer=scorer)
    given: dict[str, Any] = {"data": data, "val": val, "device": device, "listen": listen, "folder": folder, "stop": stop}
    job = Job.of(built, recipe, asked, **given)
    with nullcontext() if folder is None or not job.ranks.first else locked(folder), job.ranks.together():
        return _through(job, resume=resume)


def _through(job: Job, *, resume: bool) -> Run:
    """The stages in order, from the first or from where an interrupted run was."""
    started = time.perf_counter()
    torch.manual_seed(job.settings.options.choice.seed)
    state = begun(job, resume=resume)
    position = state.position
    for number, stage in enumerate(state.fit.stages):
        if number < position.stage:
            continue
        if stage is None or (isinstance(stage, Distil) and not job.settings.training.distill):
            position.stage = number + 1
            continue
        before = time.perf_counter()
        figures = DOES[type(stage)](job, state, number, stage)
        position.done.append({"title": stage.title, "seconds": time.perf_counter() - before, **figures})
        position.stage, position.loop, position.doomed = number + 1, None, None
        keep(job, state)
        if number + 1 < len(state.fit.stages) and job.ranks.agreed(job.stop()):
            raise Stopped
    return finished(job, state, started)
