"""Recipes: ordered stages as data, and the one function that runs them."""

from prunekit.plugins import discover
from prunekit.recipes.isomorphic import ISOMORPHIC
from prunekit.recipes.iterative import ITERATIVE
from prunekit.recipes.oneshot import ONESHOT
from prunekit.recipes.outcome import Event, Listener, Run
from prunekit.recipes.runner import run
from prunekit.recipes.settings import override, parse
from prunekit.recipes.sparsity import BATCH_NORM, GROUP_LASSO, GROWING
from prunekit.recipes.stages import COMMON, Distil, Evaluate, Prune, Recipe, Repeat, Stage, Term, stages_of

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
