"""Mean IoU with one point, or one box, an annotation: the figure that training and model cards watch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import nn

from prunekit.errors import InputError

from .data import MaskedImage
from .examination import examine, prompted_by
from .promptable import DISC, Promptable, Trivial, encode
from .prompts import ask, parsed
from .scores import Masks, iou

__all__ = ["Evaluation", "Prompt", "disc_miou", "encode", "evaluate", "filled_box_miou", "iou", "predict"]

Prompt = Literal["point", "box"]


@dataclass(frozen=True)
class Evaluation:
    """`miou` is the mean over `per_image`, each the mean IoU of one image's annotations.

    `images` and `masks` count what was scored; `skipped` counts annotations with an empty mask, left out.
    """

    miou: float
    per_image: tuple[float, ...]
    images: int
    masks: int
    skipped: int


def evaluate(
    sam: nn.Module,
    samples: Sequence[MaskedImage],
    prompt: Prompt = "point",
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score `sam` on the first `limit` samples with one point, or one box, an annotation.

    One mask a prompt (no multimask), logits above the model's threshold, IoU at the image's own size. `progress` is
    called with the number of images done and their total. The model's mode is put back afterwards.
    Raises `InputError` for an unknown prompt and `DataError` where there is nothing to score.
    """
    if prompt not in ("point", "box"):
        raise InputError(f"unknown prompt {prompt!r}", hint="'point' or 'box'")
    return both(sam, samples, (prompt,), limit, progress)[0]


def both(
    sam: nn.Module,
    samples: Sequence[MaskedImage],
    prompts: Sequence[Prompt],
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Evaluation, ...]:
    """``evaluate`` for each of ``prompts``, every image encoded once for all of them."""
    was_training = sam.training
    sam.eval()
    try:
        return _evaluated(prompted_by(sam), samples, prompts, limit, progress)
    finally:
        sam.train(was_training)


def filled_box_miou(samples: Sequence[MaskedImage], limit: int | None = None) -> float:
    """The score of answering every annotation with its filled box. A model prompted with boxes must be above it."""
    return _evaluated(Trivial(), samples, ("box",), limit)[0].miou


def disc_miou(samples: Sequence[MaskedImage], fraction: float = DISC, limit: int | None = None) -> float:
    """The score of answering with a disc of `fraction` of the image's area round the point of each annotation."""
    return _evaluated(Trivial(fraction), samples, ("point",), limit)[0].miou


def predict(sam: nn.Module, sample: MaskedImage, prompt: Prompt) -> Masks:
    """(n, H, W) masks, one a point (or box) of the sample, at the image's own size."""
    masks: Masks = prompted_by(sam).predict(sample.image, [ask(parsed(prompt)[0], sample)])[0][:, 0]
    return masks


def _evaluated(
    model: Promptable,
    samples: Sequence[MaskedImage],
    prompts: Sequence[Prompt],
    limit: int | None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Evaluation, ...]:
    protocols = [parsed(prompt)[0] for prompt in prompts]
    marks, skipped = examine(model, samples, protocols, limit=limit, boundary=False, progress=progress)
    results = []
    for protocol in protocols:
        per_image = tuple(float(mark.iou.mean()) for mark in marks[protocol.name])
        masks = sum(len(mark.iou) for mark in marks[protocol.name])
        results.append(Evaluation(float(np.mean(per_image)), per_image, len(per_image), masks, skipped))
    return tuple(results)
