"""Recipes: ordered stages as data, and the one function that runs them."""

from prunekit.recipes.runner import Event, Run, run
from prunekit.recipes.settings import override
from prunekit.recipes.stages import Distil, Evaluate, Prune, Recipe, Stage, Term

__all__ = ["Distil", "Evaluate", "Event", "Prune", "Recipe", "Run", "Stage", "Term", "override", "run"]
