"""Sparsity: a penalty draws whole units towards zero before they are cut."""

from prunekit.recipes.records import COMMON
from prunekit.recipes.stages import Distil, Evaluate, Prune, Recipe, Term

OUTPUT = (Term("output"),)


def _penalised(name: str, description: str, stage: Distil) -> Recipe:
    return Recipe(
        name=name,
        description=description,
        stages=(
            Evaluate("evaluate the original", "before"),
            stage,
            Prune("prune"),
            Distil("recover", OUTPUT),
            Evaluate("evaluate the pruned", "after"),
        ),
        settings={**COMMON, "align_epochs": 0},
    )


GROUP_LASSO = _penalised(
    "group-lasso",
    "train with a group lasso over units (Wen et al. 2016), prune once, distil",
    Distil("sparsify", OUTPUT, penalty="group_lasso"),
)
BATCH_NORM = _penalised(
    "network-slimming",
    "train with an L1 penalty on batch-norm scales (Liu et al. 2017), prune once, distil",
    Distil("sparsify", OUTPUT, penalty="batch_norm_scale"),
)
GROWING = _penalised(
    "growing",
    "train with a growing L2 penalty on the units that will go (Wang et al. 2021), prune once, distil",
    Distil("sparsify", OUTPUT, penalty="growing"),
)
