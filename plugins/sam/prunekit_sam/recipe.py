"""SlimSAM as data (Chen et al., arXiv 2312.05284): two cuts, each followed by a distillation that fits it."""

from __future__ import annotations

from prunekit.recipes import COMMON, Distil, Evaluate, Prune, Recipe, Term

EMBEDDING = "embedding"
ATTENTION = "attention.head_dim"
MLP = "mlp.hidden"

SLIMSAM = Recipe(
    name="slimsam",
    description="prune the embedding, align the bottleneck, prune the bottleneck, align the embedding",
    model="sam:nano",
    stages=(
        Evaluate("evaluate the teacher", "before"),
        Prune("prune the embedding", ((EMBEDDING,),), {EMBEDDING: "heads"}),
        # Eq. 5-6: the bottleneck still has the teacher's widths, so its features can be compared as they are
        Distil(
            "align the bottleneck",
            (
                Term("bottleneck", "a", roles=(ATTENTION, MLP)),
                Term("output", "1-a"),
            ),
            schedule="constant",
        ),
        Prune("prune the bottleneck", ((ATTENTION,), (MLP,)), {MLP: "heads"}),
        # Eq. 7-8: the embedding has the widths of the model before this cut, the output those of the original too
        Distil(
            "align the embedding",
            (
                Term("embedding", "a", roles=(EMBEDDING,), teacher="previous"),
                Term("previous output", "a", teacher="previous"),
                Term("output", "1-a"),
            ),
            schedule="linear",
        ),
        Evaluate("evaluate the student", "after"),
    ),
    settings={**COMMON, "ranking": "global", "images": 1000, "train_images": 10000},
)

# For the bundled model and generated scenes, on two cores and in a few minutes. The 128 px teacher learns quicker than
# the paper's, so the step is larger and falls to zero within the run.
NANO = {
    "images": 48,
    "train_images": 240,
    "val_images": 48,
    "epochs": 4,
    "align_epochs": 2,
    "batch": 4,
    "accumulate": 1,
    "lr": 1e-3,
    "lr_schedule": "cosine",
}
# For full-size models without data there is nothing to learn from: enough to see the whole way through.
FULL_SIZE = {"images": 1, "train_images": 1, "val_images": 1, "epochs": 1, "align_epochs": 1}
