"""Iterative: a little at a time, with a distillation after every cut."""

from prunekit.recipes.records import COMMON
from prunekit.recipes.stages import Distil, Evaluate, Prune, Recipe, Repeat, Term

ITERATIVE = Recipe(
    name="iterative",
    description="prune in steps on a cubic or linear schedule, distil towards the original after each",
    stages=(
        Evaluate("evaluate the original", "before"),
        Repeat((Prune("prune"), Distil("recover", (Term("output"),)))),
        Evaluate("evaluate the pruned", "after"),
    ),
    settings={**COMMON, "prune_steps": 5, "schedule": "cubic", "epochs": 4, "align_epochs": 0},
)
