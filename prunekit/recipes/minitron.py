"""Minitron: prune once by what passes through, distil on logits (Muralidharan et al. 2024, arXiv 2407.14679)."""

from dataclasses import replace

from prunekit.recipes.records import COMMON
from prunekit.recipes.stages import Distil, Evaluate, Prune, Recipe, Term

MINITRON = Recipe(
    name="minitron",
    description="prune once, refit, distil on logits by their divergence from the original's (2407.14679)",
    stages=(
        Evaluate("evaluate the original", "before"),
        Prune("prune"),
        Distil(
            "distil on logits",
            (
                Term("hidden states", roles=("embedding",), aligning=True, loss="cosine"),  # with align_epochs > 0
                Term("logits", loss="kl"),
            ),
        ),
        Evaluate("evaluate the pruned", "after"),
    ),
    settings={
        **COMMON,
        "compensate": "ridge",
        "align_epochs": 0,
        "steps": 300,
        "accumulate": 1,
        "lr": 1e-4,
        "lr_schedule": "cosine",
    },
)
MINITRON_LORA = replace(
    MINITRON,
    name="minitron-lora",
    description="minitron, but adapters of low rank are trained in the place of weights, and merged at the end",
    settings={**MINITRON.settings, "lora_rank": 16, "lr": 5e-4},
)
