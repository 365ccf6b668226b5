"""A run that can begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunekit.runfiles import RunFile

if TYPE_CHECKING:
    from prunekit.recipes import Recipe
    from prunekit.registry.building import Built
    from prunekit.scorers import Scorer


@dataclass(frozen=True)
class Ready:
    """A run that can begin: the model built, the recipe with its settings, and ``asked`` with all of it spelt out."""

    asked: RunFile
    built: Built
    recipe: Recipe
    scorer: Scorer

    @property
    def keywords(self) -> dict[str, Any]:
        """For ``prunekit.runs.run``."""
        return {**self.asked.options, "data": self.asked.data, "val": self.asked.val, "device": self.asked.device}

    @property
    def goes_home(self) -> bool:
        """Whether widths that the model's own library can load are tried first, since nobody said otherwise."""
        entry = self.built.entry
        said = "uniform" in self.asked.options or self.recipe.settings.get("ranking") != "local"
        return entry is not None and entry.uniform and not said
