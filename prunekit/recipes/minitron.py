"""Minitron: prune once by what passes through, distil on logits (Muralidharan et al. 2024, arXiv 2407.14679)."""

from prunekit.recipes.records import COMMON
from prunekit.recipes.stages import Distil, Evaluate, Prune, Recipe, Term

MINITRON = Recipe(
    name="minitron",
    description="prune once, distil on logits by their divergence from the original's (Muralidharan et al. 2024)",
    stages=(
        Evaluate("evaluate the original", "before"),
        Prune("prune"),
        Distil("distil on logits", (Term("logits", loss="kl"),)),
        Evaluate("evaluate the pruned", "after"),
    ),
    settings={**COMMON, "align_epochs": 0},
)
