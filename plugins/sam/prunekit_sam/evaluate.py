"""Mean IoU of a promptable model: every image encoded once, every annotation prompted on its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from prunekit.errors import DataError, InputError

from .data import Sample

Prompt = Literal["point", "box"]
Masks = NDArray[np.bool_]
_CHUNK = 64  # prompts a pass through the mask decoder


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
    sam: Sam,
    samples: Sequence[Sample],
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
    was_training = sam.training
    sam.eval()
    try:
        return _scored(lambda sample: predict(sam, sample, prompt), samples, limit, progress)
    finally:
        sam.train(was_training)


def filled_box_miou(samples: Sequence[Sample], limit: int | None = None) -> float:
    """The score of answering every annotation with its filled box. A model prompted with boxes must be above it."""
    return _scored(_filled_boxes, samples, limit, None).miou


def disc_miou(samples: Sequence[Sample], fraction: float = 0.05, limit: int | None = None) -> float:
    """The score of answering with a disc of `fraction` of the image's area round the point of each annotation."""
    return _scored(lambda sample: _discs(sample, fraction), samples, limit, None).miou


def iou(predicted: Masks, true: Masks) -> NDArray[np.float64]:
    """(n,) IoU of (n, H, W) masks; two empty masks agree, at 1."""
    union = (predicted | true).sum((1, 2))
    return np.where(union == 0, 1.0, (predicted & true).sum((1, 2)) / np.maximum(union, 1))


def encode(sam: Sam, image: NDArray[np.uint8]) -> tuple[Tensor, tuple[int, int]]:
    """The (1, C, h, w) embedding of an (H, W, 3) image, and its (height, width) after resizing, before padding."""
    resized = ResizeLongestSide(sam.image_encoder.img_size).apply_image(image)
    pixels = torch.as_tensor(resized, device=sam.device).permute(2, 0, 1)[None].float()
    return sam.image_encoder(sam.preprocess(pixels)), (resized.shape[0], resized.shape[1])


@torch.no_grad()
def predict(sam: Sam, sample: Sample, prompt: Prompt) -> Masks:
    """(n, H, W) masks, one a point (or box) of the sample, at the image's own size."""
    size = (sample.image.shape[0], sample.image.shape[1])
    embedding, resized = encode(sam, sample.image)
    given = sample.points if prompt == "point" else sample.boxes
    masks = [np.zeros((0, *size), bool)]
    for start in range(0, len(given), _CHUNK):
        low = _decode(sam, embedding, given[start : start + _CHUNK], prompt, size)
        logits = sam.postprocess_masks(low, resized, size)
        masks.append((logits[:, 0] > sam.mask_threshold).cpu().numpy())
    return np.concatenate(masks)


def _decode(sam: Sam, embedding: Tensor, given: NDArray[np.float32], prompt: Prompt, size: tuple[int, int]) -> Tensor:
    """(n, 1, h, w) low-resolution logits for prompts in pixels of an image of `size` (height, width)."""
    transform = ResizeLongestSide(sam.image_encoder.img_size)
    points, boxes = None, None
    if prompt == "point":
        coordinates = torch.as_tensor(transform.apply_coords(given, size), dtype=torch.float, device=sam.device)
        points = (coordinates[:, None], torch.ones(len(given), 1, device=sam.device))
    else:
        boxes = torch.as_tensor(transform.apply_boxes(given, size), dtype=torch.float, device=sam.device)
    sparse, dense = sam.prompt_encoder(points=points, boxes=boxes, masks=None)
    logits: Tensor = sam.mask_decoder(
        embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=False
    )[0]
    return logits


def _scored(
    answer: Callable[[Sample], Masks],
    samples: Sequence[Sample],
    limit: int | None,
    progress: Callable[[int, int], None] | None,
) -> Evaluation:
    total = len(samples) if limit is None else min(limit, len(samples))
    per_image: list[float] = []
    masks = skipped = 0
    for index in range(total):
        sample = samples[index]
        if sample.masks is None:
            raise DataError(f"{sample.name} comes without masks to score against", hint="use Folder(path, masks=True)")
        real = sample.masks.any((1, 2))
        skipped += int((~real).sum())
        if real.any():
            given = Sample(sample.name, sample.image, sample.masks[real], sample.points[real], sample.boxes[real])
            per_image.append(float(iou(answer(given), sample.masks[real]).mean()))
            masks += int(real.sum())
        if progress is not None:
            progress(index + 1, total)
    if not per_image:
        raise DataError("nothing to score", hint="give at least one image with a mask that is not empty")
    return Evaluation(float(np.mean(per_image)), tuple(per_image), len(per_image), masks, skipped)


def _filled_boxes(sample: Sample) -> Masks:
    y, x = np.mgrid[: sample.image.shape[0], : sample.image.shape[1]] + 0.5
    x0, y0, x1, y1 = (side[:, None, None] for side in sample.boxes.T)
    return np.asarray((x > x0) & (x < x1) & (y > y0) & (y < y1))


def _discs(sample: Sample, fraction: float) -> Masks:
    y, x = np.mgrid[: sample.image.shape[0], : sample.image.shape[1]]
    px, py = (side[:, None, None] for side in sample.points.T)
    return np.asarray((x - px) ** 2 + (y - py) ** 2 <= fraction * y.size / np.pi)
