"""Widths of a slimmed image encoder, and whether the classes that other libraries build can have them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import Attention, Block
from torch import nn

from prunekit.errors import ExportError

UNIFORM = "--recipe slimsam --set ranking=local"


@dataclass(frozen=True)
class Widths:
    """One width for all blocks: of the residual stream, the heads, their number, and the MLP's hidden features."""

    embedding: int
    heads: int
    head_dim: int
    mlp: int


def whole_sam(model: nn.Module) -> Sam:
    """``model`` as segment_anything's Sam. Raises ExportError for anything else."""
    if not isinstance(model, Sam):
        raise ExportError(f"{type(model).__name__} is not segment_anything's Sam", hint="use --to exported")
    return model


def head_dim(attention: Attention) -> int:
    """Positions within a head, as the weights have them: no attribute says so once they are cut."""
    return int(attention.qkv.out_features) // 3 // int(attention.num_heads)


def uniform(sam: Sam) -> Widths | None:
    """The widths that all blocks share; None where they differ."""
    blocks: list[Block] = list(sam.image_encoder.blocks)
    found = {
        Widths(b.norm1.normalized_shape[0], b.attn.num_heads, head_dim(b.attn), b.mlp.lin1.out_features) for b in blocks
    }
    return found.pop() if len(found) == 1 else None


def buildable(sam: Sam, to: str) -> Widths:
    """The widths of ``sam`` where a constructor with one width for all blocks can make them.

    Raises ExportError that names the recipe setting which would make the export possible.
    """
    blocks: list[Block] = list(sam.image_encoder.blocks)
    widths = uniform(sam)
    if widths is None:
        raise ExportError(
            f"format {to} has one width for all blocks; here head_dim is {_span(head_dim(b.attn) for b in blocks)}, "
            f"heads {_span(b.attn.num_heads for b in blocks)}, mlp {_span(b.mlp.lin1.out_features for b in blocks)}",
            where="image_encoder.blocks",
            hint=f"prune with {UNIFORM}, or export --to onnx or --to exported, which take any widths",
        )
    if widths.heads * widths.head_dim != widths.embedding:
        raise ExportError(
            f"format {to} has an attention as wide as the embedding; here it is {widths.heads} x {widths.head_dim} = "
            f"{widths.heads * widths.head_dim}, the embedding {widths.embedding}",
            where="image_encoder.blocks",
            hint=f"cut both by one ratio, as {UNIFORM} does, or export --to onnx or --to exported",
        )
    return widths


def _span(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"
