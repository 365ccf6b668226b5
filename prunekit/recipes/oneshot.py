"""Oneshot: measure, prune once, measure. What a command without a recipe does."""

from prunekit.recipes.records import COMMON
from prunekit.recipes.stages import Evaluate, Prune, Recipe

SETTINGS = (
    "ranking",
    "allocation",
    "normaliser",
    "accumulation",
    "align",
    "compensate",
    "replace",
    "verify",
    "images",
    "train_images",
    "val_images",
    "split",
    "seed",
    "latency",
)

ONESHOT = Recipe(
    name="oneshot",
    description="prune once, without training; --set compensate=ridge refits what is left in closed form",
    stages=(Evaluate("evaluate the original", "before"), Prune("prune"), Evaluate("evaluate the pruned", "after")),
    settings={name: COMMON[name] for name in SETTINGS} | {"distill": False},
)
