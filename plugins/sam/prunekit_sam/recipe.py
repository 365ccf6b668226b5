"""SlimSAM as data (Chen et al., arXiv 2312.05284): two cuts, each followed by a distillation that fits it.

The recipe names roles, never classes or layers: it runs on any vision transformer. Roles that a model lacks are left
out with a notice, such as the embedding of a model that returns it.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from prunekit.recipes import COMMON, Distil, Evaluate, Even, Falling, Prune, Recipe, Term

from .ablations import Ablations, arranged

EMBEDDING = "embedding"
ATTENTION = "attention.head_dim"
MLP = "mlp.hidden"

BEFORE, AFTER = Evaluate("evaluate the teacher", "before"), Evaluate("evaluate the student", "after")

SLIMSAM = Recipe(
    name="slimsam",
    description="prune the embedding, align the bottleneck, prune the bottleneck, align the embedding",
    model="sam:nano",
    stages=(
        BEFORE,
        Prune("prune the embedding", ((EMBEDDING,),), {EMBEDDING: "heads"}, bound=(ATTENTION,)),
        # Eq. 5-6: the bottleneck still has the teacher's widths, so its features can be compared as they are
        Distil(
            "align the bottleneck",
            (
                Term("bottleneck", roles=(ATTENTION, MLP), aligning=True),
                Term("output"),
            ),
            weighting=Even(),
        ),
        Prune("prune the bottleneck", ((ATTENTION,), (MLP,)), {MLP: "heads"}),
        # Eq. 7-8: the embedding has the widths of the model before this cut, the output those of the original too
        Distil(
            "align the embedding",
            (
                Term("embedding", roles=(EMBEDDING,), teacher="previous", aligning=True),
                Term("previous output", teacher="previous", aligning=True),
                Term("output"),
            ),
            weighting=Falling(),
        ),
        AFTER,
    ),
    settings={
        **COMMON,
        "ranking": "global",
        "images": 1000,
        "train_images": 10000,
        **asdict(Ablations()),
    },
    optional=(EMBEDDING, ATTENTION, MLP),
    own=Ablations,
    arrange=arranged,
)
GLOBAL = replace(
    SLIMSAM,
    name="slimsam-global",
    description="slimsam whose blocks share out the bottleneck among them: widths differ from block to block",
    settings={**SLIMSAM.settings, "ranking": "global"},
)
UNIFORM = replace(
    SLIMSAM,
    name="slimsam-uniform",
    description="slimsam with one width for all blocks: loads in stock segment_anything and Hugging Face classes",
    settings={**SLIMSAM.settings, "ranking": "local"},
)
ONESTEP = replace(
    SLIMSAM,
    name="slimsam-onestep",
    description="slimsam's control: one scoring, one cut of embedding and bottleneck, one distillation of the output",
    stages=(
        BEFORE,
        Prune("prune", ((EMBEDDING,), (ATTENTION,), (MLP,)), {EMBEDDING: "heads", MLP: "heads"}),
        Distil("align the output", (Term("output"),)),
        AFTER,
    ),
    settings={**SLIMSAM.settings, "align_epochs": 0},
)
# As the published scripts reduce, read and weigh: sums within Linear and Conv weights, gradients added up over images,
# features joined to one tensor a shape, the hidden one after its activation, no clipping. Their mistakes are left out
# (docs/slimsam-paper.md).
PAPER = replace(
    SLIMSAM,
    name="slimsam-paper",
    description="slimsam with the reductions, features and weights of the published scripts, less their mistakes",
    stages=(
        *SLIMSAM.stages[:2],
        Distil(
            "align the bottleneck",
            (
                Term("attention features", roles=(ATTENTION,), aligning=True, pooled="shapes"),
                Term("hidden features", roles=(MLP,), aligning=True, pooled="shapes", where="read"),
                Term("output"),
            ),
            weighting=Even(),
        ),
        *SLIMSAM.stages[3:],
    ),
    settings={**SLIMSAM.settings, "accumulation": "signed", "within": "sum", "reads": "matrix", "clip": 0.0},
)
# What is left is refitted in closed form before it is aligned: half of what slimming loses, without a training step
# (docs/slimsam-beyond.md).
PLUS = replace(
    SLIMSAM,
    name="slimsam-plus",
    description="slimsam with a least-squares refit, layer by layer, between each cut and its distillation",
    settings={**SLIMSAM.settings, "compensate": "ridge-in-order"},
)
RECIPES = (SLIMSAM, UNIFORM, GLOBAL, ONESTEP, PAPER, PLUS)

# For the bundled model and generated scenes, on two cores and in a few minutes. The 128 px teacher learns quicker than
# the paper's, so the step is larger and falls to zero within the run.
NANO = {
    "images": 48,
    "train_images": 480,
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
