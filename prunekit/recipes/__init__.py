"""Recipes: ordered stages as data, and the one function that runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunekit.plugins import discover
from prunekit.recipes.isomorphic import ISOMORPHIC
from prunekit.recipes.iterative import ITERATIVE
from prunekit.recipes.oneshot import ONESHOT
from prunekit.recipes.settings import override, parse
from prunekit.recipes.sparsity import BATCH_NORM, GROUP_LASSO, GROWING
from prunekit.recipes.stages import COMMON, Distil, Evaluate, Prune, Recipe, Repeat, Stage, Term, stages_of

if TYPE_CHECKING:
    from prunekit.recipes.outcome import Event, Listener, Run
    from prunekit.recipes.runner import run
else:
    from prunekit import _lazy

    # a plug-in brings recipes as data: whoever loads a pruned model with it needs nothing that runs them
    _lazy.install(
        __name__,
        {**dict.fromkeys(("Event", "Listener", "Run"), "prunekit.recipes.outcome"), "run": "prunekit.recipes.runner"},
    )

__all__ = [
    "COMMON",
    "ONESHOT",
    "Distil",
    "Evaluate",
    "Event",
    "Listener",
    "Prune",
    "Recipe",
    "Repeat",
    "Run",
    "Stage",
    "Term",
    "known_recipes",
    "override",
    "parse",
    "run",
    "stages_of",
]

OWN = (ONESHOT, ITERATIVE, ISOMORPHIC, GROUP_LASSO, BATCH_NORM, GROWING)


def known_recipes() -> dict[str, Recipe]:
    """Every recipe by name: prunekit's own and those of the plug-ins."""
    own = {recipe.name: recipe for recipe in OWN}
    return own | {name: recipe for plugin in discover() for name, recipe in plugin.recipes.items()}
