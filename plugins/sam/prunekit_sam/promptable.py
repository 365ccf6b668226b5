"""Whatever answers prompts with masks: Segment Anything models of any width, and two trivial answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from .prompts import Prompts
from .scores import Masks

CHUNK, CHUNK_CPU = 64, 8  # prompts a pass through the mask decoder; fewer stay in a processor's caches
DISC = 0.05  # of the image's area


class Promptable(Protocol):
    """Answers prompts about one (H, W, 3) image: for each of ``asked``, (n, c, H, W) masks.

    c is 1, or several candidates where ``multimask`` was asked for, the model's own choice first. An image is looked
    at once a call, however many prompts there are.
    """

    def predict(self, image: NDArray[np.uint8], asked: Sequence[Prompts]) -> Sequence[Masks]: ...


def encode(sam: Sam, image: NDArray[np.uint8]) -> tuple[Tensor, tuple[int, int]]:
    """The (1, C, h, w) embedding of an (H, W, 3) image, and its (height, width) after resizing, before padding."""
    resized = ResizeLongestSide(sam.image_encoder.img_size).apply_image(image)
    pixels = torch.as_tensor(resized, device=sam.device).permute(2, 0, 1)[None].float()
    return sam.image_encoder(sam.preprocess(pixels)), (resized.shape[0], resized.shape[1])


@dataclass(frozen=True)
class Prompted:
    """A model of segment_anything's classes, stock or pruned, in evaluation mode; logits above its threshold."""

    sam: Sam

    @torch.no_grad()
    def predict(self, image: NDArray[np.uint8], asked: Sequence[Prompts]) -> Sequence[Masks]:
        """The image encoder runs once; the decoder reads some prompts at a time."""
        size = (image.shape[0], image.shape[1])
        embedding, resized = encode(self.sam, image)
        answers = []
        for prompts in asked:
            masks = [np.zeros((0, 1, *size), bool)] if not len(prompts) else []
            for chunk in chunks(prompts, self.sam.device):
                low = ordered(*decode(self.sam, embedding, chunk, size))
                logits = self.sam.postprocess_masks(low, resized, size)
                masks.append((logits > self.sam.mask_threshold).cpu().numpy())
            answers.append(np.concatenate(masks))
        return answers


def decode(sam: Sam, embedding: Tensor, prompts: Prompts, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(n, c, h, w) low-resolution logits and (n, c) predicted IoU, for an image of ``size`` (height, width)."""
    transform = ResizeLongestSide(sam.image_encoder.img_size)
    points, boxes = None, None
    if prompts.points is not None:
        coordinates = torch.as_tensor(transform.apply_coords(prompts.points, size), dtype=torch.float, device="cpu").to(
            sam.device
        )
        points = (coordinates, torch.ones(coordinates.shape[:2], device=sam.device))
    if prompts.boxes is not None:
        boxes = torch.as_tensor(transform.apply_boxes(prompts.boxes, size), dtype=torch.float, device="cpu").to(
            sam.device
        )
    sparse, dense = sam.prompt_encoder(points=points, boxes=boxes, masks=None)
    logits, quality = sam.mask_decoder(
        embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=prompts.multimask
    )
    return logits, quality


def ordered(masks: Tensor, quality: Tensor) -> Tensor:
    """Candidates (n, c, h, w) by falling predicted IoU (n, c)."""
    order = quality.argsort(dim=1, descending=True, stable=True)
    return masks[torch.arange(len(masks), device=masks.device)[:, None], order]


def chunks(prompts: Prompts, device: torch.device) -> Iterator[Prompts]:
    """``prompts``, as many at a time as suits ``device``, in order."""
    size = CHUNK_CPU if device.type == "cpu" else CHUNK
    for start in range(0, len(prompts), size):
        part = slice(start, start + size)
        points = None if prompts.points is None else prompts.points[part]
        boxes = None if prompts.boxes is None else prompts.boxes[part]
        yield Prompts(points, boxes, prompts.multimask)


class Trivial:
    """Answers a box with the box, filled, and points with a disc of ``DISC`` of the image round the first of them."""

    def __init__(self, disc: float = DISC) -> None:
        self.disc = disc

    def predict(self, image: NDArray[np.uint8], asked: Sequence[Prompts]) -> Sequence[Masks]:
        size = (image.shape[0], image.shape[1])
        return [self._answer(prompts, size)[:, None] for prompts in asked]

    def _answer(self, prompts: Prompts, size: tuple[int, int]) -> Masks:
        y, x = np.mgrid[: size[0], : size[1]]
        if prompts.boxes is not None:
            x0, y0, x1, y1 = (side[:, None, None] for side in prompts.boxes.T)
            return np.asarray((x + 0.5 > x0) & (x + 0.5 < x1) & (y + 0.5 > y0) & (y + 0.5 < y1))
        assert prompts.points is not None
        px, py = (side[:, None, None] for side in prompts.points[:, 0].T)
        return np.asarray((x - px) ** 2 + (y - py) ** 2 <= self.disc * y.size / np.pi)
