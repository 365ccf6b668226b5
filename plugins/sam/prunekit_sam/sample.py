"""One image with segments to prompt for, and how it is read from a picture and its annotations in SA-1B's JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import UnidentifiedImageError

from prunekit.errors import DataError

LARGEST_MASKS = 2**33  # bytes of the masks of one image: a thousand of eight million pixels


@dataclass(frozen=True)
class MaskedImage:
    """One image, and per segment a mask, a point inside it and its box. Coordinates are pixels of the image.

    `masks` is None where they were not asked for; `points` and `boxes` then have no rows.
    """

    name: str
    image: NDArray[np.uint8]  # (H, W, 3) RGB
    masks: NDArray[np.bool_] | None  # (n, H, W)
    points: NDArray[np.float32]  # (n, 2) x, y
    boxes: NDArray[np.float32]  # (n, 4) x0, y0, x1, y1


def bare(name: str, image: NDArray[np.uint8]) -> MaskedImage:
    """A sample without masks."""
    return MaskedImage(name, image, None, np.zeros((0, 2), np.float32), np.zeros((0, 4), np.float32))


def decode_image(data: bytes, where: str) -> NDArray[np.uint8]:
    """The (H, W, 3) RGB pixels of an image file, as stored. Raises `DataError` for what cannot be decoded whole."""
    try:
        with PILImage.open(BytesIO(data)) as image:
            return np.array(image.convert("RGB"), np.uint8)
    except Exception as error:  # decoders, and libraries that put theirs before Pillow's, raise what they like
        unknown = any(isinstance(each, UnidentifiedImageError) for each in (error, error.__context__))
        reason = "not an image" if unknown else error
        raise DataError(
            f"cannot read the image {where}: {reason}", hint="it may be truncated; copy it again"
        ) from error


def annotated(name: str, image: NDArray[np.uint8], text: bytes, where: str) -> MaskedImage:
    """The sample of `image` and its SA-1B annotations, the JSON `text` that came from `where`. Raises `DataError`."""
    size = (image.shape[0], image.shape[1])
    try:
        annotations = json.loads(text)["annotations"]
        if not isinstance(annotations, list) or not annotations:
            raise DataError(f"no annotations in {where}", hint="it needs a list of at least one under 'annotations'")
        room_for(len(annotations), size)
        masks = np.stack([decode_rle(note["segmentation"], size) for note in annotations])
        points = np.array([note["point_coords"][0] for note in annotations], np.float32).reshape(-1, 2)
        boxes = np.array([note["bbox"] for note in annotations], np.float32).reshape(-1, 4)
    except (OverflowError, KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"cannot use the annotations {where}: {reason}",
            hint="every annotation needs a COCO RLE 'segmentation', an XYWH 'bbox' and 'point_coords'",
        ) from error
    boxes[:, 2:] += boxes[:, :2]
    return MaskedImage(name, image, masks, points, boxes)


def room_for(count: int, size: tuple[int, int]) -> None:
    """Raises `ValueError` where masks of so many annotations, one byte a pixel, are more than any image has."""
    wanted = count * size[0] * size[1]
    if wanted > LARGEST_MASKS:
        raise ValueError(f"{count} masks of {size[0]} x {size[1]} pixels take {wanted / 2**30:.0f} GiB")


def decode_rle(rle: Any, size: tuple[int, int] | None = None) -> NDArray[np.bool_]:
    """The (H, W) mask of a COCO RLE `{"size": [H, W], "counts": str | list}`.

    Raises `ValueError` where it is broken and, before any pixel is drawn, where it is not of the `size` of its image.
    """
    height, width = (int(side) for side in rle["size"])
    if size is not None and (height, width) != size:
        raise ValueError(f"a mask of {(height, width)} for an image of {size} (height, width)")
    counts = rle["counts"]
    runs = np.array(_runs(counts) if isinstance(counts, str) else counts, np.int64)
    # one by one as well: a sum that overflows may come out right, and numpy then crashes
    fits = height > 0 and width > 0 and bool(((runs >= 0) & (runs <= height * width)).all())
    if not fits or int(runs.sum()) != height * width:
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
        if shift > 60:
            raise ValueError("broken RLE: a number without an end")
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
