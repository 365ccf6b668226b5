"""Pictures for people: photo and prompt, the true mask, masks before and after with their IoU, a row an image."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import nn

from prunekit.plugins import Exhibit, Picture
from prunekit.samples import Samples

from .data import MaskedImage
from .evaluation import iou, predict

ROWS, SIDE, GAP, HEAD = 6, 192, 6, 18
TINT = np.array([255, 120, 0], np.float32)

Pixels = NDArray[np.uint8]


def masks_picture(before: nn.Module, after: nn.Module, samples: Samples, path: Path) -> None:
    """Write ``path``: the panels of ``shown``, a row a sample."""
    rows = [panels for _, panels in shown(before, after, samples)]
    width, height = 4 * (SIDE + GAP) + GAP, max(1, len(rows)) * (HEAD + SIDE + GAP) + GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for row, panels in enumerate(rows):
        top = GAP + row * (HEAD + SIDE + GAP)
        for column, panel in enumerate(panels):
            left = GAP + column * (SIDE + GAP)
            figures = ", ".join(f"{name} {value:.3f}" for name, value in panel.figures.items())
            draw.text((left, top), f"{panel.caption}  {figures}", fill="black")
            sheet.paste(scaled(panel.pixels), (left, top + HEAD))
    sheet.save(path)


def masks_exhibit(before: nn.Module, after: nn.Module, samples: Samples) -> list[Exhibit]:
    """The same for report.html, a picture a panel."""
    return [
        Exhibit(name, tuple(Picture(panel.caption, png(panel.pixels), panel.figures) for panel in panels))
        for name, panels in shown(before, after, samples)
    ]


@dataclass(frozen=True)
class Panel:
    """One picture of a row: what it shows, (H, W, 3) bytes, and the IoU with the truth where it is an answer."""

    caption: str
    pixels: Pixels
    figures: Mapping[str, float] = field(default_factory=dict)


def shown(before: nn.Module, after: nn.Module, samples: Samples) -> Iterator[tuple[str, list[Panel]]]:
    """For up to six samples: the photo with its prompt, the true mask, and what either model answers, with IoU."""
    for row in range(min(ROWS, len(samples))):
        sample = most_in_view(samples.items[row])
        if sample is None or sample.masks is None:
            continue
        truth = overlay(sample.image, sample.masks[0])
        panels = [Panel("prompt: one point", prompted(sample)), Panel("truth", truth)]
        for caption, model in (("before", before), ("after", after)):
            answer = predict(model, sample, "point")[:1]
            panels.append(
                Panel(caption, overlay(sample.image, answer[0]), {"IoU": float(iou(answer, sample.masks)[0])})
            )
        yield sample.name, panels


def png(pixels: Pixels) -> bytes:
    """The picture as PNG, no more than twice as large as a tile."""
    image = Image.fromarray(pixels)
    image.thumbnail((2 * SIDE, 2 * SIDE))
    held = io.BytesIO()
    image.save(held, "PNG", optimize=True)
    return held.getvalue()


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
