"""Photos with human masks as training examples: crops of them, and their segments pasted over other photos."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from prunekit_sam import scenes
from prunekit_sam.data import Folder
from prunekit_sam.models import TINY_SIZE
from prunekit_sam.training import MOST, TeacherSettings, example
from torch import Tensor
from torch.utils.data import Dataset

SIDE = TINY_SIZE
SMALLEST = 0.002  # of what is seen of an image; BSDS500's own limit
PAD = (124, 116, 104)  # SAM's mean pixel: what its padding is after normalisation
SHARES = {"photo": 0.6, "pasted": 0.25, "scene": 0.15}

Pixels = NDArray[np.uint8]
Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class Photo:
    """``image`` (H, W, 3) and its n segments, one bit a pixel."""

    image: Pixels
    bits: Pixels  # (n, ceil(H W / 8))

    def masks(self) -> Masks:
        """(n, H, W)"""
        height, width = self.image.shape[:2]
        return np.unpackbits(self.bits, axis=1, count=height * width).astype(bool).reshape(-1, height, width)


def read(folder: Path, names: slice) -> list[Photo]:
    """The photos of a folder in SA-1B's layout, in the order of their names."""
    photos = []
    found = Folder(folder)
    for index in range(*names.indices(len(found))):
        sample = found[index]
        assert sample.masks is not None
        photos.append(Photo(sample.image, np.packbits(sample.masks.reshape(len(sample.masks), -1), axis=1)))
    return photos


class PhotoExamples(Dataset[dict[str, Tensor]]):
    """`count` examples from the number `first` on, each a function of the seed and its number alone."""

    def __init__(
        self, photos: list[Photo], backgrounds: list[Path], settings: TeacherSettings, first: int, count: int
    ) -> None:
        self.photos, self.backgrounds = photos, backgrounds
        self.settings, self.first, self.count = settings, first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        number = self.first + index
        rng = np.random.default_rng((self.settings.seed, number))
        kind = rng.choice(list(SHARES), p=list(SHARES.values()))
        if kind == "scene":
            made = scenes.scene(self.settings.seed, number, SIDE)
            image, masks = made.image, made.masks
        elif kind == "pasted":
            image, masks = self._pasted(rng)
        else:
            image, masks = self._cropped(rng)
        chosen = np.sort(rng.permutation(len(masks))[:MOST])
        return example(_lit(image, rng), masks[chosen], self.settings, rng)

    def _cropped(self, rng: np.random.Generator) -> tuple[Pixels, Masks]:
        while True:
            photo = self.photos[int(rng.integers(len(self.photos)))]
            rows, columns = _window(photo.image.shape, rng)
            image, masks = photo.image[rows, columns], photo.masks()[:, rows, columns]
            masks = masks[masks.mean((1, 2)) >= SMALLEST]
            if not len(masks):
                continue
            masks = masks[np.sort(rng.permutation(len(masks))[:MOST])]
            if rng.random() < 0.5:
                image, masks = image[:, ::-1], masks[:, :, ::-1]
            image, masks = _framed(image, masks)
            masks = masks[masks.any((1, 2))]
            if len(masks):
                return image, masks

    def _pasted(self, rng: np.random.Generator) -> tuple[Pixels, Masks]:
        """One to five segments over a photo of another collection; a mask is what is visible of a segment."""
        background = self.backgrounds[int(rng.integers(len(self.backgrounds)))]
        with Image.open(background) as opened:
            whole = np.asarray(opened.convert("RGB"))
        rows, columns = _window(whole.shape, rng)
        seen_of_it = whole[rows, columns]
        shape = seen_of_it.shape[:2]
        canvas, _ = _framed(seen_of_it, np.zeros((0, *shape), bool))
        height, width = (max(1, round(side * SIDE / max(shape))) for side in shape)
        masks: list[Masks] = []
        for _ in range(int(rng.integers(1, 6))):
            patch, cut = self._segment(rng)
            scale = SIDE * rng.uniform(0.12, 0.75) / max(cut.shape)
            size = tuple(max(4, round(side * scale)) for side in cut.shape)
            patch = _smaller(patch, size)
            alpha = _smaller(cut.astype(np.uint8) * 255, size).astype(np.float32) / 255
            top, left = (
                int(rng.integers(-s // 3, max(f - 2 * s // 3, 1))) for s, f in zip(size, (height, width), strict=True)
            )
            y, x = max(top, 0), max(left, 0)
            h, w = min(top + size[0], height) - y, min(left + size[1], width) - x
            if h < 4 or w < 4:
                continue
            seen = (slice(y - top, y - top + h), slice(x - left, x - left + w))
            a = alpha[seen][..., None]
            target = canvas[y : y + h, x : x + w]
            canvas[y : y + h, x : x + w] = (a * patch[seen] + (1 - a) * target).round().astype(np.uint8)
            mask = np.zeros((SIDE, SIDE), bool)
            mask[y : y + h, x : x + w] = a[..., 0] > 0.5
            masks = [m & ~mask for m in masks] + [mask]
        kept = [mask for mask in masks if mask.sum() >= SMALLEST * height * width]
        return (canvas, np.stack(kept)) if kept else self._pasted(rng)

    def _segment(self, rng: np.random.Generator) -> tuple[Pixels, Masks]:
        """A segment cut out along its box, sometimes mirrored: (h, w, 3) pixels and its (h, w) mask."""
        while True:
            photo = self.photos[int(rng.integers(len(self.photos)))]
            one = replace(photo, bits=photo.bits[int(rng.integers(len(photo.bits)))][None])
            mask = one.masks()[0]
            if not 0.004 <= mask.mean() <= 0.4:
                continue
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
            patch, cut = photo.image[box], mask[box]
            return (patch[:, ::-1], cut[:, ::-1]) if rng.random() < 0.5 else (patch, cut)


def _window(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[slice, slice]:
    """The whole image, four times in ten; else a part with sides of 0.4 to 1 of the image's."""
    if rng.random() < 0.4:
        return slice(0, shape[0]), slice(0, shape[1])
    scale, skew = rng.uniform(0.45, 1), np.exp(rng.uniform(-0.25, 0.25))
    height = min(shape[0], max(32, round(shape[0] * scale * skew)))
    width = min(shape[1], max(32, round(shape[1] * scale / skew)))
    top, left = int(rng.integers(shape[0] - height + 1)), int(rng.integers(shape[1] - width + 1))
    return slice(top, top + height), slice(left, left + width)


def _framed(image: Pixels, masks: Masks) -> tuple[Pixels, Masks]:
    """Both with the longest side at `SIDE`, padded to the right and below, as SAM pads."""
    longest = max(image.shape[:2])
    size = tuple(max(1, round(side * SIDE / longest)) for side in image.shape[:2])
    small = _smaller(image, size)
    rows, columns = (((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(size, image.shape[:2], strict=True))
    pixels = np.empty((SIDE, SIDE, 3), np.uint8)
    pixels[:] = PAD
    pixels[: size[0], : size[1]] = small
    framed = np.zeros((len(masks), SIDE, SIDE), bool)
    framed[:, : size[0], : size[1]] = masks[:, rows[:, None], columns]
    return pixels, framed


def _smaller(image: Pixels, size: tuple[int, ...]) -> Pixels:
    opened = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(opened.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _lit(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Another exposure and another white balance; the padding stays what it is."""
    gains = np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.06, 3))
    shifted = (image.astype(np.float32) - 128) * np.exp(rng.normal(0, 0.15)) + 128 + rng.normal(0, 8)
    lit = np.clip(shifted * gains, 0, 255).astype(np.uint8)
    return np.where((image == np.array(PAD, np.uint8)).all(-1, keepdims=True), image, lit)
