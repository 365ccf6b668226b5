"""Recipes: ordered stages as data, and the one function that runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunekit.plugins import discover
from prunekit.recipes.settings import override, parse
from prunekit.recipes.stages import COMMON, Distil, Evaluate, Prune, Recipe, Stage, Term

if TYPE_CHECKING:
    from prunekit.recipes.runner import Event, Listener, Run, run
else:
    from prunekit import _lazy

    # a plug-in brings recipes as data: whoever loads a pruned model with it needs nothing that runs them
    _lazy.install(__name__, dict.fromkeys(("Event", "Listener", "Run", "run"), "prunekit.recipes.runner"))

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
