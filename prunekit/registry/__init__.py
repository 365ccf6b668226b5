"""Models, criteria and recipes by name: prunekit's own, those of model libraries and those of the plug-ins."""

from prunekit.registry.building import Built, build
from prunekit.registry.criteria import criterion, known_scorers, scorer
from prunekit.registry.lookup import foreign, home, names
from prunekit.registry.recipes import known_recipes

__all__ = ["Built", "build", "criterion", "foreign", "home", "known_recipes", "known_scorers", "names", "scorer"]
