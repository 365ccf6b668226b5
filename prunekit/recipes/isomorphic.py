"""Isomorphic (Fang et al. 2024, arXiv 2407.04616): groups of one structure are ranked together, then distilled."""

from prunekit.recipes.records import COMMON
from prunekit.recipes.stages import Distil, Evaluate, Prune, Recipe, Term

ISOMORPHIC = Recipe(
    name="isomorphic",
    description="rank groups of the same structure together, prune once, distil towards the original",
    stages=(
        Evaluate("evaluate the original", "before"),
        Prune("prune"),
        Distil("recover", (Term("output"),)),
        Evaluate("evaluate the pruned", "after"),
    ),
    settings={**COMMON, "ranking": "isomorphic", "normaliser": "none", "align_epochs": 0},
)
