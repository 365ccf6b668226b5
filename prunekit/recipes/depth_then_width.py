"""Depth, then width: whole blocks by the damage of each, widths of what is left, a distillation after each cut."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

from prunekit.options.fields import said
from prunekit.recipes.records import COMMON
from prunekit.recipes.stages import Distil, Evaluate, Prune, Recipe, Stage, Term
from prunekit.roles import BLOCK


@dataclass(frozen=True)
class BlocksShare:
    """Settings of recipes that cut blocks and widths in turn."""

    blocks: float = field(
        default=0.5, metadata=said("of a target, or a ratio that names no role: what whole blocks take, up to 1")
    )


def blocks_first(blocks: object) -> Prune:
    """The stage that cuts blocks, for the setting ``blocks``."""
    return Prune("prune blocks", ((str(BLOCK),),), share=min(1.0, float(str(blocks))))


def _with_share(recipe: Recipe, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    share = blocks_first(recipe.settings["blocks"]).share
    return tuple(replace(s, share=share) if isinstance(s, Prune) and s.deep else s for s in stages)


DEPTH_THEN_WIDTH = Recipe(
    name="depth-then-width",
    description="prune whole blocks by the damage of each, distil, prune widths of what is left, distil",
    stages=(
        Evaluate("evaluate the original", "before"),
        blocks_first(0.5),
        Distil("recover from fewer blocks", (Term("output"),)),
        Prune("prune widths"),
        Distil("recover", (Term("output"),)),
        Evaluate("evaluate the pruned", "after"),
    ),
    settings={**COMMON, **asdict(BlocksShare()), "align_epochs": 0},
    own=BlocksShare,
    arrange=_with_share,
)
