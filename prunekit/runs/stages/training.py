"""Training the part towards frozen teachers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from prunekit.coupling.structure import Structure
from prunekit.errors import RecipeError
from prunekit.planning.candidates import choose
from prunekit.recipes.records import Training
from prunekit.recipes.stages import Distil, Prune
from prunekit.runs.distillation import distil
from prunekit.runs.fitting import comparable
from prunekit.runs.job import Job
from prunekit.runs.keeping import TEACHERS, drop_teachers
from prunekit.runs.outcome import Event
from prunekit.runs.penalties import Penalty, penalty
from prunekit.runs.prune_stage import drafted, reached, structure_of
from prunekit.runs.stages.cutting import asked_of
from prunekit.runs.under_way import UnderWay, keep, lean

logger = logging.getLogger(__name__)


def train_part(job: Job, run: UnderWay, number: int, stage: Distil) -> dict[str, Any]:
    """The last epoch's mean of every loss; the part is trained in place."""
    structure = structure_of(run.part, run.train)
    if not job.settings.training.align_epochs:
        stage = replace(stage, terms=tuple(term for term in stage.terms if not term.aligning) or stage.terms)
    _warn_of_no_weight(stage, job.settings.training)
    answers = None if job.built.entry is None else job.built.entry.answers
    stage = comparable(stage, structure, run.sizes, answered=answers is not None)
    wanted = {str(term.teacher) for term in stage.terms}
    teachers = {name: teacher for name, teacher in run.teachers.items() if name in wanted}
    asked = job.settings.sampling.train_images
    train = run.train.first(asked) if asked else run.train
    cache = None if job.folder is None else job.folder / TEACHERS / str(number)
    penalised = _penalty(job, run, number, stage, structure)

    def progress(done: int, total: int, figures: Mapping[str, float]) -> None:
        job.listen(Event(number, stage.title, done, total, "steps", figures))
        run.position.told.heard(stage.title, done, figures)

    try:
        with lean(job, run.part, *teachers.values()), _frozen_rest(run):
            return distil(
                run.part,
                teachers,
                stage,
                train,
                structure.taps,
                job.settings.training,
                progress,
                penalised,
                ranks=job.ranks,
                start=run.position.loop,
                keep=lambda state: keep(job, run, state),
                folder=cache,
                stop=job.stop,
                rest=None if answers is None else lambda output, seed: answers(run.model, output, seed),
            )
    finally:
        if cache is not None and job.ranks.first:
            drop_teachers(cache.parent)


@contextmanager
def _frozen_rest(run: UnderWay) -> Iterator[None]:
    """No gradient for what lies outside the part: losses may read it, and none of it is trained."""
    inside = set(run.part.parameters())
    frozen = [p for p in run.model.parameters() if p.requires_grad and p not in inside]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def _warn_of_no_weight(stage: Distil, training: Training) -> None:
    """Says it where the schedule leaves the aligning terms nothing, as one that falls to zero does in a single epoch."""
    epochs = range(min(training.epochs, training.align_epochs))
    terms = [term.name for term in stage.terms if term.aligning]
    if terms and epochs and not any(stage.weighting.weight(epoch, training.align_epochs) for epoch in epochs):
        logger.warning(
            "%s: %s count nothing, since their weight is 0 in all of align_epochs=%d; more epochs give them some",
            stage.title,
            " and ".join(terms),
            training.align_epochs,
        )


def _penalty(job: Job, run: UnderWay, number: int, stage: Distil, structure: Structure) -> Penalty | None:
    """The stage's penalty on the groups of the next cut; ``growing`` asks it what would go."""
    if not stage.penalty:
        return None
    later = [each for each in run.fit.stages[number:] if isinstance(each, Prune)]
    if not later:
        raise RecipeError("a penalty prepares a cut, and none follows", where=stage.title)
    groups = choose(structure, replace(job.scope, roles=reached(structure, later[0])))
    if stage.penalty == "growing" and run.position.doomed is None:
        asked = asked_of(job, run, later[0], structure)

        def decide() -> dict[str, list[int]]:
            made = drafted(run.part, later[0], structure, run.train, asked, lambda done, total: None)
            return {
                g.name: sorted({*range(g.size)} - {*made.kept[g.name].tolist()}) for g in groups if g.name in made.kept
            }

        run.position.doomed = job.ranks.decided(decide)
    doomed = {name: torch.tensor(units, dtype=torch.long, device="cpu") for name, units in (run.position.doomed or {}).items()}
    return penalty(stage.penalty, run.part, groups, doomed)
