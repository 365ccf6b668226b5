"""Recipes: ordered stages as data, and the one function that runs them."""

from prunekit.recipes.runner import Event, Listener, Run, run
from prunekit.recipes.settings import override, parse
from prunekit.recipes.stages import COMMON, Distil, Evaluate, Prune, Recipe, Stage, Term

__all__ = [
    "COMMON",
    "Distil",
    "Evaluate",
    "Event",
    "Listener",
    "Prune",
    "Recipe",
    "Run",
    "Stage",
    "Term",
    "override",
    "parse",
    "run",
]
