"""Running a recipe: its stages in order over one model, and what there is to say about it afterwards."""

from __future__ import annotations

import copy
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunekit.coupling.structure import Structure
from prunekit.errors import RecipeError
from prunekit.plans.contents import Plan
from prunekit.planning.drafting import choose
from prunekit.samples.tasks import Samples
from prunekit.runs.prune_stage import Asked, applied, drafted, reached, structure_of, verified_by
from prunekit.runs.image_data import NOT_VALIDATED, images, parts
from prunekit.runs.distillation import Settings, distil
from prunekit.runs.distillation.state import State
from prunekit.runs.metrics import evaluator_for
from prunekit.runs.fitting import Fitted, comparable, fitted
from prunekit.runs.goals import Goal, Shares
from prunekit.runs.outcome import Event, Listener, Run
from prunekit.runs.penalties import Penalty, penalty
from prunekit.runs.position import PREVIOUS, Position
from prunekit.runs.ranks import Ranks, ranks_of
from prunekit.runs.reporting import report, skipped_in
from prunekit.runs.keeping import RunFolder, fingerprint
from prunekit.recipes.stages import Distil, Prune, Recipe, Stage, stages_of
from prunekit.registry.building import Built
from prunekit.scorers import Scorer
from prunekit.selection.ratio import Ratio
from prunekit.quantities.limits import Target


def run(
    built: Built,
    recipe: Recipe,
    scorer: Scorer,
    *,
    ratio: Ratio | None = None,
    target: Target | None = None,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    data: Path | None = None,
    val: Path | None = None,
    device: str | torch.device = "cpu",
    listen: Listener | None = None,
    folder: Path | None = None,
    resume: bool = False,
) -> Run:
    """Run ``recipe`` on ``built.model``, in place.

    Args:
        ratio: share of units that every prune stage removes, in [0, 1); or a mapping from roles to shares. 0.5 where
            neither it nor a target is given.
        target, include, exclude: as for ``prunekit.prune``; ``runs/goals.py`` says how stages share a target.
        data, val: folders of training and validation samples; None generates them, each from its own stream. With the
            setting ``split``, both come from ``data``, and what ``prunekit.samples.splits`` calls its test part is not read.
        listen: hears of progress.
        folder: where the run is kept while it is under way, after every stage and every ``save_minutes``; the caller
            removes it when the result is safe.
        resume: go on with the run that ``folder`` holds, if there is one. Weights, settings and data must be the same;
            on a CPU the result is then equal to that of an undisturbed run, bit for bit.

    Launched by torchrun or ``accelerate launch`` on several ranks, rank 0 decides what is cut and every rank trains on
    its part of each batch.

    Raises InputError for a ratio out of range, DataError for unusable folders, RecipeError for a recipe that does not
    fit the model. The model is changed by a stage that has succeeded only; keep a copy to be safe against later ones.
    """
    goal = Goal(ratio, target, include, exclude)
    stages = stages_of(recipe)
    if not any(isinstance(stage, Prune) for stage in stages):
        raise RecipeError(f"recipe {recipe.name} has no prune stage")
    target_device = torch.device(device)
    ranks = ranks_of(target_device)
    if ranks.count > 1:
        target_device = ranks.accelerator.device
    hear = listen or (lambda event: None)
    runner = _Runner(built, recipe, stages, scorer, goal, data, val, target_device, hear, ranks, folder)
    return runner.run(resume=resume)


logger = logging.getLogger(__name__)
# Settings that decide nothing about the result, and so may differ when a run is gone on with
FREE = ("save_minutes", "latency")


@dataclass
class _Runner:
    """One run. The state between stages lives here and nowhere else."""

    built: Built
    recipe: Recipe
    stages: tuple[Stage, ...]
    scorer: Scorer
    goal: Goal
    data: Path | None
    val_folder: Path | None
    device: torch.device
    listen: Listener
    ranks: Ranks
    folder: Path | None

    def run(self, *, resume: bool) -> Run:
        started = time.perf_counter()
        self.settings = dict(self.recipe.settings)
        torch.manual_seed(int(self.settings["seed"]))
        self.train, self.val = self._samples()
        self.model = self.built.model.eval().to(self.device)
        self.ranks.same(self.model)
        self.part = self.model.get_submodule(self.built.part)
        self.structure = structure_of(self.part, self.train)
        self.fit: Fitted = fitted(self.stages, self.recipe.optional, self.structure, self.goal)
        self.original = copy.deepcopy(self.model)
        self.teachers = {"original": self.original.get_submodule(self.built.part)}
        self.sizes: dict[str, Mapping[str, int]] = {"original": sizes_of(self.structure)}
        self.evaluate = evaluator_for(self.built, self.original)
        self.kept = None if self.folder is None else RunFolder(self.folder, self._identity())
        self._begin(resume=resume)
        for number, stage in enumerate(self.fit.stages):
            if number < self.at.stage:
                continue
            if stage is None or (isinstance(stage, Distil) and not self.settings["distill"]):
                self.at.stage = number + 1
                continue
            began = time.perf_counter()
            figures = self._stage(number, stage)
            self.at.done.append({"title": stage.title, "seconds": time.perf_counter() - began, **figures})
            self.at.stage, self.at.loop, self.at.doomed = number + 1, None, None
            self._keep()
        return self._finished(started)

    def _begin(self, *, resume: bool) -> None:
        """Starts, or goes on where an interrupted run was."""
        begun = self.kept is not None and self.kept.begun
        if begun and not resume:
            raise RecipeError(
                "a run was interrupted here",
                where=str(self.folder),
                hint="--resume goes on with it; or remove that folder",
            )
        if self.kept is None or not begun:
            self.at = Position()
            self.shares = Shares.of(self.goal, self.fit.present, self.part, self.structure)
            return
        kept = self.kept.kept()
        self.at = Position.of(kept.position, kept.tensors)
        self.shares = Shares.again(self.goal, self.fit.present, self.part, self.structure, kept.position["shares"])
        if any(name.startswith(PREVIOUS) for name in kept.tensors):
            self.teachers["previous"] = copy.deepcopy(self.part)
            self.at.restore_previous(self.teachers["previous"], kept.tensors)
            self.sizes["previous"] = sizes_of(structure_of(self.teachers["previous"], self.train))
        self.at.restore(self.part, kept.tensors)

    def _keep(self, loop: State | None = None) -> None:
        """Keeps the run as it stands, where there is a folder for it."""
        if self.kept is None or not self.ranks.first:
            return
        self.at.loop = loop
        self.kept.keep(self.at.values(self.shares), self.at.tensors(self.part, self.teachers.get("previous")))

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a run to be gone on with."""
        return {
            "model": self.built.spec,
            "weights": fingerprint(self.model),
            "recipe": self.recipe.name,
            "settings": {name: value for name, value in self.settings.items() if name not in FREE},
            "scorer": repr(self.scorer),
            "goal": repr(self.goal),
            "samples": len(self.train),
            "ranks": self.ranks.count,
        }

    def _finished(self, started: float) -> Run:
        at = self.at
        # what was measured on rank 0 is not measured again on the others
        settings = self.settings if self.ranks.first else {**self.settings, "latency": False}
        numbers = report(
            self.built, self.original, self.train, at.plan, at.metrics, at.verified, settings, self.structure
        )
        return Run(
            model=self.model,
            before=self.original,
            plan=at.plan,
            report={
                "recipe": self.recipe.name,
                "model": self.built.spec,
                "part": self.built.part,
                "ratio": None if self.goal.target is not None else _plain(self.goal.share),
                "target": _plain(self.goal.target),
                "scorer": repr(self.scorer),
                **numbers,
                "skipped": skipped_in(self.ranks.gathered([*self.train.skipped, *self.val.skipped])),
                "settings": self.settings,
                "stages": at.done,
                "left_out": list(self.fit.left_out),
                "device": str(self.device),
                "ranks": self.ranks.count,
                "seconds": time.perf_counter() - started,
            },
            val=self.val,
            spec=self.built.spec,
            options=self.built.options,
            part=self.built.part,
        )

    def _samples(self) -> tuple[Samples, Samples]:
        entry, plugin = self.built.entry, self.built.plugin
        dataset = plugin.datasets[entry.dataset] if entry and plugin and entry.dataset else images
        seed = int(self.settings["seed"])
        asked = int(self.settings["train_images"])
        # A folder is used whole unless train_images says otherwise; generated images have no natural number
        count = asked or (None if self.data else int(self.settings["images"]))
        needed = None if count is None else max(count, int(self.settings["images"]))
        train_part, val_folder, val_part = parts(self.data, self.val_folder, split=bool(self.settings.get("split")))
        train = dataset(self.built.model, self.data, "train", needed, seed, train_part)
        val = dataset(self.built.model, val_folder, "val", int(self.settings["val_images"]), seed, val_part)
        if val.generated and not train.generated:
            logger.warning(NOT_VALIDATED)
        train.batch([0])  # a folder without a readable sample is worth knowing before anything is built or copied
        return train, val

    def _stage(self, number: int, stage: Stage) -> dict[str, Any]:
        if isinstance(stage, Prune):
            return self._prune(number, stage)
        if isinstance(stage, Distil):
            return self._distil(number, stage)
        progress = self._progress(number, stage.title, "images")
        with self._lean(self.model):
            figures = self.ranks.decided(lambda: dict(self.evaluate(self.model, self.val, progress)))
        self.at.metrics[stage.key] = figures
        return figures

    def _prune(self, number: int, stage: Prune) -> dict[str, Any]:
        structure = structure_of(self.part, self.train)
        if any(isinstance(later, Distil) for later in self.fit.stages[number:]) and self.settings["distill"]:
            self.teachers["previous"] = copy.deepcopy(self.part)
        self.sizes["previous"] = sizes_of(structure)
        progress, asked = self._progress(number, stage.title, "images"), self._asked(stage, structure)

        def decide() -> tuple[str, dict[str, Any]]:
            made = drafted(self.part, stage, structure, self.train, asked, progress)
            return made.plan.to_json(), verified_by(made)

        text, verified = self.ranks.decided(decide)
        plan = Plan.from_json(text)
        applied(self.part, plan, self.train, asked)
        self.ranks.same(self.part)
        self.at.plans.append(plan)
        self.at.verified.append(verified)
        return {"groups": len(plan.widths)}

    def _asked(self, stage: Prune, structure: Structure) -> Asked:
        ratio, target = self.shares.asked(stage, structure)
        given = (self.scorer, ratio, self.settings, target, self.goal.include, self.goal.exclude)
        return Asked(*given, self.shares.baseline, self.shares.sizes, self._lean)

    def _distil(self, number: int, stage: Distil) -> dict[str, Any]:
        structure = structure_of(self.part, self.train)
        stage = comparable(stage, structure, self.sizes)
        wanted = {term.teacher for term in stage.terms}

        def progress(done: int, total: int, figures: Mapping[str, float]) -> None:
            self.listen(Event(number, stage.title, done, total, "steps", figures))

        asked = int(self.settings["train_images"])
        train = self.train.first(asked) if asked else self.train
        cache = None if self.folder is None else self.folder / "teachers" / str(number)
        teachers: dict[str, nn.Module] = {name: teacher for name, teacher in self.teachers.items() if name in wanted}
        penalised = self._penalty(number, stage, structure)
        try:
            with self._lean(self.part, *teachers.values()):
                return distil(
                    self.part,
                    teachers,
                    stage,
                    train,
                    structure.taps,
                    Settings.of(self.settings),
                    progress,
                    penalised,
                    ranks=self.ranks,
                    start=self.at.loop,
                    keep=lambda state: self._keep(state),
                    folder=cache,
                )
        finally:
            if cache is not None and self.ranks.first:
                shutil.rmtree(cache, ignore_errors=True)

    @contextmanager
    def _lean(self, *models: nn.Module) -> Iterator[None]:
        """The models as the plug-in would have them run; not while they are traced, since it is not their own code."""
        entry = self.built.entry
        with ExitStack() as stack:
            if entry is not None and entry.lean is not None:
                for model in models:
                    stack.enter_context(entry.lean(model))
            yield

    def _penalty(self, number: int, stage: Distil, structure: Structure) -> Penalty | None:
        """The stage's penalty on the groups of the next cut; ``growing`` asks it what would go."""
        if not stage.penalty:
            return None
        later = [s for s in self.fit.stages[number:] if isinstance(s, Prune)]
        if not later:
            raise RecipeError("a penalty prepares a cut, and none follows", where=stage.title)
        asked = self._asked(later[0], structure)
        groups = choose(
            structure, include=self.goal.include, exclude=self.goal.exclude, roles=reached(structure, later[0])
        )
        if stage.penalty == "growing" and self.at.doomed is None:

            def decide() -> dict[str, list[int]]:
                made = drafted(self.part, later[0], structure, self.train, asked, lambda done, total: None)
                return {
                    g.name: sorted({*range(g.size)} - {*made.kept[g.name].tolist()})
                    for g in groups
                    if g.name in made.kept
                }

            self.at.doomed = self.ranks.decided(decide)
        doomed = {name: torch.tensor(units, dtype=torch.long) for name, units in (self.at.doomed or {}).items()}
        return penalty(stage.penalty, self.part, groups, doomed)

    def _progress(self, number: int, title: str, unit: str) -> Callable[[int, int], None]:
        return lambda done, total: self.listen(Event(number, title, done, total, unit))


def sizes_of(structure: Structure) -> dict[str, int]:
    """Units by group name."""
    return {group.name: group.size for group in structure.groups}


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value
