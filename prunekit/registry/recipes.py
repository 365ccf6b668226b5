"""Recipes by name."""

from __future__ import annotations

from prunekit.plugins.discovery import discover
from prunekit.recipes import OWN, Recipe


def known_recipes() -> dict[str, Recipe]:
    """Every recipe by name: prunekit's own and those of the plug-ins."""
    own = {recipe.name: recipe for recipe in OWN}
    return own | {name: recipe for plugin in discover() for name, recipe in plugin.recipes.items()}
