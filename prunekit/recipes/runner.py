"""Running a recipe: its stages in order over one model, and what there is to say about it afterwards."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from prunekit.compose import compose
from prunekit.coupling.structure import Structure
from prunekit.draft import choose
from prunekit.errors import RecipeError
from prunekit.plan import Plan
from prunekit.plugins import Samples
from prunekit.recipes.cut import Asked, cut, drafted, reached, structure_of
from prunekit.recipes.data import images
from prunekit.recipes.distil import Settings, distil
from prunekit.recipes.evaluate import evaluator_for
from prunekit.recipes.fit import Fitted, comparable, fitted
from prunekit.recipes.goal import Goal, Shares
from prunekit.recipes.penalties import Penalty, penalty
from prunekit.recipes.report import report
from prunekit.recipes.stages import Distil, Prune, Recipe, Stage, stages_of
from prunekit.registry import Built
from prunekit.scorers import Scorer
from prunekit.selection.ratio import Ratio
from prunekit.selection.target import Target


@dataclass(frozen=True)
class Event:
    """Progress of one stage: ``done`` of ``total`` in ``unit``, and figures worth showing."""

    stage: int
    title: str
    done: int
    total: int
    unit: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


class Listener(Protocol):
    """Hears of every step that a recipe makes."""

    def __call__(self, event: Event) -> None: ...


@dataclass(frozen=True)
class Run:
    """A finished recipe. It can be given to ``prunekit.save``.

    Attributes:
        model: the whole model, slimmed; the object that was given.
        before: a copy of the whole model as it was.
        plan: of ``part``, from the original to what it is now.
        report: JSON values: counts, metrics, widths, verification, settings.
        val: the samples that were evaluated.
        spec, options, part: how to build the original again, and which submodule the plan is about.
    """

    model: nn.Module
    before: nn.Module
    plan: Plan
    report: Mapping[str, Any]
    val: Samples
    spec: str
    options: Mapping[str, Any]
    part: str


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
) -> Run:
    """Run ``recipe`` on ``built.model``, in place.

    Args:
        ratio: share of units that every prune stage removes, in [0, 1); or a mapping from roles to shares. 0.5 where
            neither it nor a target is given.
        target, include, exclude: as for ``prunekit.prune``; ``recipes/goal.py`` says how stages share a target.
        data, val: folders of training and validation samples; None generates them, each from its own stream.
        listen: hears of progress.

    Raises InputError for a ratio out of range, DataError for unusable folders, RecipeError for a recipe that does not
    fit the model. The model is changed by a stage that has succeeded only; keep a copy to be safe against later ones.
    """
    goal = Goal(ratio, target, include, exclude)
    stages = stages_of(recipe)
    if not any(isinstance(stage, Prune) for stage in stages):
        raise RecipeError(f"recipe {recipe.name} has no prune stage")
    hear = listen or (lambda event: None)
    return _Runner(built, recipe, stages, scorer, goal, data, val, torch.device(device), hear).run()


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

    def run(self) -> Run:
        started = time.perf_counter()
        self.settings = dict(self.recipe.settings)
        torch.manual_seed(int(self.settings["seed"]))
        self.train, self.val = self._samples()
        self.model = self.built.model.eval().to(self.device)
        self.part = self.model.get_submodule(self.built.part)
        self.structure = structure_of(self.part, self.train)
        self.fit: Fitted = fitted(self.stages, self.recipe.optional, self.structure, self.goal)
        self.shares = Shares.of(self.goal, self.fit.present, self.part, self.structure)
        self.original = copy.deepcopy(self.model)
        self.teachers = {"original": self.original.get_submodule(self.built.part)}
        self.sizes: dict[str, Mapping[str, int]] = {"original": self.shares.sizes}
        self.plans: list[Plan] = []
        self.evaluate = evaluator_for(self.built, self.original)
        self.metrics: dict[str, Mapping[str, float]] = {}
        self.done: list[dict[str, Any]] = []
        self.verified: list[dict[str, Any]] = []
        for number, stage in enumerate(self.fit.stages):
            if stage is None or (isinstance(stage, Distil) and not self.settings["distill"]):
                continue
            began = time.perf_counter()
            figures = self._stage(number, stage)
            self.done.append({"title": stage.title, "seconds": time.perf_counter() - began, **figures})
        plan = reduce(compose, self.plans)
        numbers = report(
            self.built, self.original, self.train, plan, self.metrics, self.verified, self.settings, self.structure
        )
        return Run(
            model=self.model,
            before=self.original,
            plan=plan,
            report={
                "recipe": self.recipe.name,
                "model": self.built.spec,
                "part": self.built.part,
                "ratio": None if self.goal.target is not None else _plain(self.goal.share),
                "target": _plain(self.goal.target),
                "scorer": repr(self.scorer),
                **numbers,
                "settings": self.settings,
                "stages": self.done,
                "left_out": list(self.fit.left_out),
                "device": str(self.device),
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
        train = dataset(self.built.model, self.data, "train", needed, seed)
        val = dataset(self.built.model, self.val_folder, "val", int(self.settings["val_images"]), seed)
        train.batch([0])  # an unreadable sample is worth knowing before anything is built or copied
        return train, val

    def _stage(self, number: int, stage: Stage) -> dict[str, Any]:
        if isinstance(stage, Prune):
            return self._prune(number, stage)
        if isinstance(stage, Distil):
            return self._distil(number, stage)
        figures = dict(self.evaluate(self.model, self.val, self._progress(number, stage.title, "images")))
        self.metrics[stage.key] = figures
        return figures

    def _prune(self, number: int, stage: Prune) -> dict[str, Any]:
        structure = structure_of(self.part, self.train)
        if any(isinstance(later, Distil) for later in self.fit.stages[number:]) and self.settings["distill"]:
            self.teachers["previous"] = copy.deepcopy(self.part)
        self.sizes["previous"] = {group.name: group.size for group in structure.groups}
        progress = self._progress(number, stage.title, "images")
        plan, verified = cut(self.part, stage, structure, self.train, self._asked(stage, structure), progress)
        self.plans.append(plan)
        self.verified.append(verified)
        return {"groups": len(plan.widths)}

    def _asked(self, stage: Prune, structure: Structure) -> Asked:
        ratio, target = self.shares.asked(stage, structure)
        given = (self.scorer, ratio, self.settings, target, self.goal.include, self.goal.exclude)
        return Asked(*given, self.shares.whole, self.shares.sizes)

    def _distil(self, number: int, stage: Distil) -> dict[str, Any]:
        structure = structure_of(self.part, self.train)
        stage = comparable(stage, structure, self.sizes)
        wanted = {term.teacher for term in stage.terms}

        def progress(done: int, total: int, figures: Mapping[str, float]) -> None:
            self.listen(Event(number, stage.title, done, total, "steps", figures))

        asked = int(self.settings["train_images"])
        train = Samples(self.train.items[:asked], self.train.encode) if asked else self.train
        return distil(
            self.part,
            {name: teacher for name, teacher in self.teachers.items() if name in wanted},
            stage,
            train,
            structure.taps,
            Settings.of(self.settings),
            progress,
            self._penalty(number, stage, structure),
        )

    def _penalty(self, number: int, stage: Distil, structure: Structure) -> Penalty | None:
        """The stage's penalty on the groups of the next cut; ``growing`` asks it what would go."""
        if not stage.penalty:
            return None
        later = [s for s in self.fit.stages[number:] if isinstance(s, Prune)]
        if not later:
            raise RecipeError("a penalty prepares a cut, and none follows", where=stage.title)
        kept: Mapping[str, Tensor] = {}
        if stage.penalty == "growing":
            asked = self._asked(later[0], structure)
            kept = drafted(self.part, later[0], structure, self.train, asked, lambda done, total: None).kept
        groups = choose(
            structure, include=self.goal.include, exclude=self.goal.exclude, roles=reached(structure, later[0])
        )
        doomed = {
            g.name: torch.tensor(sorted({*range(g.size)} - {*kept[g.name].tolist()})) for g in groups if g.name in kept
        }
        return penalty(stage.penalty, self.part, groups, doomed)

    def _progress(self, number: int, title: str, unit: str) -> Callable[[int, int], None]:
        return lambda done, total: self.listen(Event(number, title, done, total, unit))


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value
