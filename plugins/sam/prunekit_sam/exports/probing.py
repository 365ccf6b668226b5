"""The same input for a slimmed SAM and for what was written of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from segment_anything.modeling import Sam
from torch import Tensor

NAMES = ("image_embeddings", "iou_scores", "pred_masks")


@dataclass(frozen=True)
class Probe:
    """One random image and the prompts for two masks.

    Attributes:
        pixels: (1, 3, S, S), preprocessed.
        points: (1, 2, 2, 2), x and y in pixels of the resized image.
        labels: (1, 2, 2) int64, 1 foreground and 0 background.
    """

    pixels: Tensor
    points: Tensor
    labels: Tensor


def probe(sam: Sam, seed: int = 0) -> Probe:
    """A random image of ``sam``'s size; the first mask has a point on and a point off the object, the second two on."""
    side = int(sam.image_encoder.img_size)
    dice = torch.Generator().manual_seed(seed)
    return Probe(
        torch.randn(1, 3, side, side, generator=dice, device="cpu"),
        torch.rand(1, 2, 2, 2, generator=dice, device="cpu") * side,
        torch.tensor([[[1, 0], [1, 1]]], device="cpu"),
    )


@torch.no_grad()
def answers(sam: Sam, given: Probe) -> dict[str, Tensor]:
    """What ``sam`` makes of it, through segment_anything's own forwards.

    ``image_embeddings`` (1, C, h, w), ``iou_scores`` (1, 2, masks), ``pred_masks`` (1, 2, masks, 4h, 4w) logits.
    """
    embedding = sam.image_encoder(given.pixels)
    sparse, dense = sam.prompt_encoder(points=(given.points[0], given.labels[0]), boxes=None, masks=None)
    positions = sam.prompt_encoder.get_dense_pe()
    masks, scores = sam.mask_decoder(embedding, positions, sparse, dense, multimask_output=True)
    return dict(zip(NAMES, (embedding, scores[None], masks[None]), strict=True))
