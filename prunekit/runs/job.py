"""What a run is given, before anything is read or built: it does not change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prunekit.errors import RecipeError
from prunekit.options import Options, Scope
from prunekit.options.together import from_settings
from prunekit.recipes.records import Reporting, Sampling, Training
from prunekit.recipes.stages import Prune, Recipe, Stage, stages_of
from prunekit.registry.building import Built
from prunekit.runs.outcome import Listener
from prunekit.runs.ranks import Ranks, ranks_of
from prunekit.runs.stopping import Asked


# A recipe has its own steps (iterative: --set prune_steps), and its losses compare outputs with the original's
NO_USE = ("steps", "schedule", "on_step", "free_outputs", "latency")


@dataclass(frozen=True)
class RunSettings:
    """A recipe's settings, typed; they were checked when they were set."""

    options: Options
    sampling: Sampling
    training: Training
    reporting: Reporting

    @classmethod
    def of(cls, settings: Mapping[str, Any], options: Options) -> RunSettings:
        """``options`` are the user's; those among the settings replace theirs."""
        typed = options.replaced(**from_settings(settings))
        return cls(typed, Sampling.of(settings), Training.of(settings), Reporting.of(settings))


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a recipe on a model, as it was asked for.

    Attributes:
        built: the model; its part is pruned in place.
        stages: of the recipe, written out.
        settings: of the recipe, typed; with the user's options.
        data, val: folders of training and validation samples; None generates them.
        folder: where the run is kept while it is under way; None keeps nothing.
        stop: whether the run is asked to end.
    """

    built: Built
    recipe: Recipe
    stages: tuple[Stage, ...]
    settings: RunSettings
    data: Path | None
    val: Path | None
    device: torch.device
    listen: Listener
    ranks: Ranks
    folder: Path | None
    stop: Asked = lambda: False

    @property
    def scope(self) -> Scope:
        """What goes."""
        return self.settings.options.scope

    @classmethod
    def of(
        cls,
        built: Built,
        recipe: Recipe,
        options: Options,
        *,
        data: Path | None = None,
        val: Path | None = None,
        device: str | torch.device = "cpu",
        listen: Listener | None = None,
        folder: Path | None = None,
        stop: Asked = lambda: False,
    ) -> Job:
        """The job of ``prunekit.runs.run``, whose arguments these are.

        Raises RecipeError for a recipe without a cut, InputError for an option that recipes have no use for.
        """
        options.refuse("a recipe", NO_USE)
        stages = stages_of(recipe)
        if not any(isinstance(stage, Prune) for stage in stages):
            raise RecipeError(f"recipe {recipe.name} has no prune stage")
        ranks = ranks_of(torch.device(device))
        where = torch.device(device) if ranks.count == 1 else ranks.accelerator.device
        settings = RunSettings.of(recipe.settings, options)
        hear = listen or (lambda event: None)
        return cls(built, recipe, stages, settings, data, val, where, hear, ranks, folder, stop)
