"""Minitron: prune once by what passes through, distil on logits (Muralidharan et al. 2024, arXiv 2407.14679)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

from prunekit.options.fields import said
from prunekit.recipes.depth_then_width import BlocksShare, blocks_first
from prunekit.recipes.records import COMMON
from prunekit.recipes.stages import Distil, Evaluate, Prune, Recipe, Stage, Term
from prunekit.roles import DEPTH


@dataclass(frozen=True)
class WhatGoes(BlocksShare):
    """Settings of these recipes alone."""

    # of a model that is to lose a part of itself these cost least; embedding and heads go where they are named
    roles: str = field(
        default="mlp.hidden", metadata=said("that are cut, between commas, blocks first; empty: every width")
    )


def _arranged(recipe: Recipe, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    roles = tuple(word.strip() for word in str(recipe.settings["roles"]).split(",") if word.strip())
    deep = [role for role in roles if role in DEPTH]
    pools = tuple(pool for pool in (tuple(role for role in roles if role not in deep),) if pool)
    found: list[Stage] = []
    for stage in stages:
        if isinstance(stage, Prune) and deep:
            first = blocks_first(recipe.settings["blocks"] if pools else 1)
            found.append(replace(first, pools=(tuple(deep),)))
        if not isinstance(stage, Prune):
            found.append(stage)
        elif pools or not deep:
            found.append(replace(stage, pools=pools))
    return tuple(found)


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
        **asdict(WhatGoes()),
        "compensate": "ridge",
        "align_epochs": 0,
        "steps": 300,
        "accumulate": 1,
        "lr": 1e-4,
        "lr_schedule": "cosine",
    },
    own=WhatGoes,
    arrange=_arranged,
)
MINITRON_LORA = replace(
    MINITRON,
    name="minitron-lora",
    description="minitron, but adapters of low rank are trained in the place of weights, and merged at the end",
    settings={**MINITRON.settings, "lora_rank": 16, "lr": 5e-4},
)
