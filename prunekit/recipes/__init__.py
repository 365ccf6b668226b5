"""Recipes: ordered stages as data, and the one function that runs them."""

from prunekit.plugins import discover
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
    "known_recipes",
    "override",
    "parse",
    "run",
]


def known_recipes() -> dict[str, Recipe]:
    """Every recipe of every installed plug-in, by name."""
    return {name: recipe for plugin in discover() for name, recipe in plugin.recipes.items()}
