"""Recipes: ordered stages as data. ``prunekit.runs`` runs them."""

from prunekit.recipes.depth_then_width import DEPTH_THEN_WIDTH
from prunekit.recipes.isomorphic import ISOMORPHIC
from prunekit.recipes.iterative import ITERATIVE
from prunekit.recipes.minitron import MINITRON, MINITRON_LORA
from prunekit.recipes.oneshot import ONESHOT
from prunekit.recipes.records import COMMON
from prunekit.recipes.settings import override, parse
from prunekit.recipes.sparsity import BATCH_NORM, GROUP_LASSO, GROWING
from prunekit.recipes.stages import (
    Distil,
    Evaluate,
    Even,
    Falling,
    Prune,
    Recipe,
    Repeat,
    Stage,
    Term,
    Weighting,
    stages_of,
)

OWN = (ONESHOT, ITERATIVE, DEPTH_THEN_WIDTH, ISOMORPHIC, GROUP_LASSO, BATCH_NORM, GROWING, MINITRON, MINITRON_LORA)

__all__ = [
    "COMMON",
    "ONESHOT",
    "OWN",
    "Distil",
    "Evaluate",
    "Even",
    "Falling",
    "Prune",
    "Recipe",
    "Repeat",
    "Stage",
    "Term",
    "Weighting",
    "override",
    "parse",
    "stages_of",
]
