"""Images with segments to prompt for: generated scenes or an SA-1B folder. Decoded when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from prunekit.errors import DataError

from . import scenes

_IMAGES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Sample:
    """One image, and per segment a mask, a point inside it and its box. Coordinates are pixels of the image.

    `masks` is None where they were not asked for; `points` and `boxes` then have no rows.
    """

    name: str
    image: NDArray[np.uint8]  # (H, W, 3) RGB
    masks: NDArray[np.bool_] | None  # (n, H, W)
    points: NDArray[np.float32]  # (n, 2) x, y
    boxes: NDArray[np.float32]  # (n, 4) x0, y0, x1, y1


class _Lazy(Sequence[Sample]):
    """A sequence from `_get(index)`; slices are lists."""

    def _get(self, index: int) -> Sample:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self._get(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._get(index % len(self))


class GeneratedScenes(_Lazy):
    """`count` scenes of `size` x `size` pixels from the stream `seed`; points lie deepest inside their segments."""

    def __init__(self, count: int, seed: int = 0, size: int = 128) -> None:
        if count < 1 or size < 16 or seed < 0:
            what = f"cannot generate {count} scenes of {size} px from seed {seed}"
            raise DataError(what, hint="count >= 1, size >= 16, seed >= 0")
        self.seed, self.size, self._count = seed, size, count

    def __len__(self) -> int:
        return self._count

    def _get(self, index: int) -> Sample:
        scene = scenes.scene(self.seed, index, self.size)
        points = np.array([scenes.point_inside(mask) for mask in scene.masks], np.float32)
        boxes = np.array([scenes.bounding_box(mask) for mask in scene.masks], np.float32)
        return Sample(f"scene-{self.seed}-{index}", scene.image, scene.masks, points, boxes)


class Folder(_Lazy):
    """A folder in the SA-1B layout, `NAME.jpg` beside `NAME.json`, in the order of the names.

    With `masks=False` only the images are read, and JSON files are optional. A folder without images and, with masks,
    an image or JSON file without its other half raise `DataError` at once; unreadable content does when it is decoded.
    """

    def __init__(self, path: str | Path, masks: bool = True) -> None:
        self.path, self.masks = Path(path), masks
        if not self.path.is_dir():
            raise DataError(f"no folder at {self.path}", hint="give a folder of NAME.jpg and NAME.json pairs")
        files = sorted(self.path.iterdir())
        self.images = [file for file in files if file.suffix.lower() in _IMAGES]
        if masks:
            _check_pairs(self.images, [file for file in files if file.suffix == ".json"])
        if not self.images:
            raise DataError(f"no images in {self.path}", hint="the folder must hold .jpg or .png files")

    def __len__(self) -> int:
        return len(self.images)

    def _get(self, index: int) -> Sample:
        file = self.images[index]
        image = read_image(file)
        if not self.masks:
            return Sample(file.stem, image, None, np.zeros((0, 2), np.float32), np.zeros((0, 4), np.float32))
        return _annotated(file, image)


def read_image(path: Path) -> NDArray[np.uint8]:
    """The (H, W, 3) RGB pixels of an image file, as stored. Raises `DataError` for what cannot be decoded whole."""
    try:
        with PILImage.open(path) as image:
            return np.array(image.convert("RGB"), np.uint8)
    except (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError) as error:
        raise DataError(f"cannot read the image {path}: {error}", hint="it may be truncated; copy it again") from error


def _check_pairs(images: list[Path], notes: list[Path]) -> None:
    alone = sorted({file.stem: file for file in images}.keys() ^ {file.stem for file in notes})
    if alone:
        known = {file.stem: file.name for file in [*images, *notes]}
        raise DataError(
            f"{len(alone)} files without their other half in {(images or notes)[0].parent}: "
            + ", ".join(known[stem] for stem in alone[:3]),
            hint="every NAME.jpg needs a NAME.json; use masks=False where images alone are enough",
        )


def _annotated(file: Path, image: NDArray[np.uint8]) -> Sample:
    notes = file.with_suffix(".json")
    try:
        annotations = json.loads(notes.read_text(encoding="utf-8"))["annotations"]
        if not isinstance(annotations, list) or not annotations:
            raise DataError(f"no annotations in {notes}", hint="it needs a list of at least one under 'annotations'")
        masks = np.stack([decode_rle(note["segmentation"]) for note in annotations])
        points = np.array([note["point_coords"][0] for note in annotations], np.float32).reshape(-1, 2)
        boxes = np.array([note["bbox"] for note in annotations], np.float32).reshape(-1, 4)
    except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"cannot use the annotations {notes}: {reason}",
            hint="every annotation needs a COCO RLE 'segmentation', an XYWH 'bbox' and 'point_coords'",
        ) from error
    if masks.shape[1:] != image.shape[:2]:
        raise DataError(f"{notes} has masks of {masks.shape[1:]} for an image of {image.shape[:2]} (height, width)")
    boxes[:, 2:] += boxes[:, :2]
    return Sample(file.stem, image, masks, points, boxes)


def decode_rle(rle: Any) -> NDArray[np.bool_]:
    """The (H, W) mask of a COCO RLE `{"size": [H, W], "counts": str | list}`. Raises `ValueError` where broken."""
    height, width = (int(side) for side in rle["size"])
    counts = rle["counts"]
    runs = np.array(_runs(counts) if isinstance(counts, str) else counts, np.int64)
    if height < 1 or width < 1 or (runs < 0).any() or int(runs.sum()) != height * width:
        raise ValueError(f"broken RLE: its runs cover {int(runs.sum())} pixels of {height} x {width}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T.copy()


def _runs(text: str) -> list[int]:
    """COCO's compressed counts: 5 bits a character, low bits first, the sixth for more to come.

    From the fourth on, a count is stored less the one before last.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text.encode():
        code = character - 48
        if not 0 <= code < 64:
            raise ValueError("broken RLE: a character outside its alphabet")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    if shift:
        raise ValueError("broken RLE: it ends inside a number")
    return runs
