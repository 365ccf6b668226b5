"""From what was asked to a run that can begin, or go on: samples, structure, the original, the stages that fit."""

from __future__ import annotations

from typing import Any

from torch import nn

from prunekit.errors import RecipeError
from prunekit.offloading.copies import copied_in_files
from prunekit.runs.fitting import fitted
from prunekit.runs.goals import Shares
from prunekit.runs.held_out import train_and_val
from prunekit.runs.job import Job
from prunekit.runs.keeping import TEACHERS, RunFolder, drop_teachers, weights_digest
from prunekit.runs.metrics import evaluator_for
from prunekit.runs.position import PREVIOUS, Position
from prunekit.runs.prune_stage import structure_of
from prunekit.runs.under_way import UnderWay, sizes_of
from prunekit.samples.tasks import Samples

# Settings that decide nothing about the result, and so may differ when a run is gone on with; of batches only the
# samples that all ranks see together do
FREE = ("save_minutes", "latency", "batch")


def begun(job: Job, *, resume: bool) -> UnderWay:
    """A run before its first stage, or where an interrupted one was.

    Raises DataError for unusable folders, RecipeError for a recipe that does not fit the model or a run in the way.
    """
    train, val = _samples(job)
    model = job.built.model.eval().to(job.device)
    job.ranks.same(model)
    part = model.get_submodule(job.built.part)
    structure = structure_of(part, train)
    fit = fitted(job.stages, job.recipe.optional, structure, job.scope)
    original = copied_in_files(model)
    teachers = {"original": original.get_submodule(job.built.part)}
    kept = None if job.folder is None else RunFolder(job.folder, _identity(job, model, train))
    going_on = kept is not None and kept.begun
    if going_on and not resume:
        raise RecipeError(
            "a run was interrupted here", where=str(job.folder), hint="--resume goes on with it; or remove that folder"
        )
    if kept is not None and not going_on and job.ranks.first:
        drop_teachers(kept.path / TEACHERS)  # of a run that died before it kept anything: whose, nobody knows
    told = kept.kept() if kept is not None and going_on else None
    if told is None:
        shares = Shares.of(job.scope, fit.present, part, structure)
    else:
        shares = Shares.again(job.scope, fit.present, part, structure, told.position["shares"])
    evaluate, sizes = evaluator_for(job.built, original), {"original": sizes_of(structure)}
    run = UnderWay(train, val, model, part, structure, fit, original, teachers, {**sizes}, evaluate, kept, shares)
    if told is not None:
        _restore(run, told.position, told.tensors)
    return run


def _restore(run: UnderWay, values: Any, tensors: Any) -> None:
    run.position = Position.of(values, tensors)
    if any(name.startswith(PREVIOUS) for name in tensors):
        run.teachers["previous"] = copied_in_files(run.part)
        run.position.restore_previous(run.teachers["previous"], tensors)
        run.sizes["previous"] = sizes_of(structure_of(run.teachers["previous"], run.train))
    run.position.restore(run.part, tensors)


def _samples(job: Job) -> tuple[Samples, Samples]:
    sampling, seed = job.settings.sampling, job.settings.options.choice.seed
    # A folder is used whole unless train_images says otherwise; generated images have no natural number
    count = sampling.train_images or (None if job.data else sampling.images)
    needed = None if count is None else max(count, sampling.images)
    counts = (needed, sampling.val_images)
    train, val = train_and_val(job.built, job.data, job.val, counts, seed, split=sampling.split)
    train.batch([0])  # a folder without a readable sample is worth knowing before anything is built or copied
    return train, val


def _identity(job: Job, model: nn.Module, train: Samples) -> dict[str, Any]:
    """What must be the same for a run to be gone on with."""
    return {
        "model": job.built.spec,
        "weights": weights_digest(model),
        "recipe": job.recipe.name,
        **_stages_said(job),
        "settings": {name: value for name, value in job.recipe.settings.items() if name not in FREE},
        "scorer": repr(job.settings.options.choice.scorer),
        "goal": repr(job.scope),
        "samples": len(train),
        "batch of all ranks": job.ranks.count * job.settings.training.batch,
    }


def _stages_said(job: Job) -> dict[str, Any]:
    """The stages, which a file may have changed under the same name; not those with code in them, which has no text."""
    said = repr(job.stages)
    return {} if " at 0x" in said else {"stages": said}
