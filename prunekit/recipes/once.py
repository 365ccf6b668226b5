"""The recipe of a command without one: measure, prune once, measure."""

from prunekit.recipes.stages import COMMON, Evaluate, Prune, Recipe

ONCE = Recipe(
    name="once",
    description="prune every role once, without any training",
    stages=(Evaluate("evaluate the original", "before"), Prune("prune"), Evaluate("evaluate the pruned", "after")),
    settings={
        name: COMMON[name]
        for name in ("ranking", "normaliser", "accumulation", "images", "train_images", "val_images", "seed", "latency")
    }
    | {"distill": False},
)
