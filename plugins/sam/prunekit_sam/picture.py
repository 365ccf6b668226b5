"""A picture for people: photo, prompt, mask before, mask after, a row an image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import nn

from prunekit.samples import Samples

from .data import MaskedImage
from .evaluation import predict

ROWS, SIDE, GAP, HEAD = 6, 192, 6, 18
COLUMNS = ("photo", "prompt", "before", "after")
TINT = np.array([255, 120, 0], np.float32)

Pixels = NDArray[np.uint8]


def masks_picture(before: nn.Module, after: nn.Module, samples: Samples, path: Path) -> None:
    """Write ``path``: for up to six samples the photo, its largest segment's point, and what either model answers."""
    rows = min(ROWS, len(samples))
    width, height = len(COLUMNS) * (SIDE + GAP) + GAP, HEAD + rows * (SIDE + GAP) + GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(COLUMNS):
        draw.text((GAP + column * (SIDE + GAP), 4), title, fill="black")
    for row in range(rows):
        sample = most_in_view(samples.items[row])
        if sample is None:
            continue
        panels = [
            sample.image,
            prompted(sample),
            overlay(sample.image, predict(before, sample, "point")[0]),
            overlay(sample.image, predict(after, sample, "point")[0]),
        ]
        for column, panel in enumerate(panels):
            tile = scaled(panel)
            sheet.paste(tile, (GAP + column * (SIDE + GAP), HEAD + GAP + row * (SIDE + GAP)))
    sheet.save(path)


def most_in_view(sample: MaskedImage) -> MaskedImage | None:
    """The sample with its largest segment only; None without any."""
    if sample.masks is None or not len(sample.masks) or not sample.masks.any():
        return None
    best = int(sample.masks.sum((1, 2)).argmax())
    pick: Callable[[NDArray[np.float32]], NDArray[np.float32]] = lambda values: values[best : best + 1]  # noqa: E731
    return MaskedImage(
        sample.name, sample.image, sample.masks[best : best + 1], pick(sample.points), pick(sample.boxes)
    )


def overlay(image: Pixels, mask: NDArray[np.bool_]) -> Pixels:
    """(H, W, 3) with the (H, W) mask tinted."""
    out = image.astype(np.float32)
    out[mask] = 0.45 * out[mask] + 0.55 * TINT
    return out.astype(np.uint8)


def prompted(sample: MaskedImage) -> Pixels:
    """The image with its first point marked."""
    image = Image.fromarray(sample.image)
    draw = ImageDraw.Draw(image)
    x, y = (float(value) for value in sample.points[0])
    radius = max(2.0, max(image.size) / 48)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill="lime", outline="black")
    return np.array(image)


def scaled(pixels: Pixels) -> Image.Image:
    """The image within SIDE x SIDE, its shape kept, on white."""
    image = Image.fromarray(pixels)
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    tile = Image.new("RGB", (SIDE, SIDE), "white")
    tile.paste(image.resize(size), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return tile
