"""COCO annotations: one JSON file for all images of a split, segments as polygons or RLE."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunekit.errors import DataError
from prunekit.samples import Lazy, Skipped, none_in, within

from .sample import MaskedImage, bare, decode_image, decode_rle, room_for
from .scenes import bounding_box

_PATTERN = "instances_*.json"


def annotation_files(folder: Path) -> list[Path]:
    """The `instances_*.json` files of a COCO folder, or of its `annotations` folder."""
    return sorted([*folder.glob(_PATTERN), *(folder / "annotations").glob(_PATTERN)])


class Coco(Lazy[MaskedImage]):
    """The images that a COCO annotation file names, in the order of their names.

    The file is the only `instances_*.json`, or the one whose name holds `split`. Images lie in `folder`, in `images`,
    or in a folder named as the file ends (`val2017`). Crowds (`iscrowd`) are left out: they are no single segment. An
    annotation without `point_coords` is prompted at the point of its mask that is farthest from the outside, one
    without `bbox` with the box round its mask. With masks, an image without annotations is listed in `skipped`, as is
    an image that is missing. `part` says which of the rest are taken (`prunekit.samples`). Raises `DataError` for a
    file that cannot be used and where nothing is left; for unusable content of an image or its annotations when they
    are decoded.
    """

    def __init__(self, folder: Path, split: str = "val", masks: bool = True, part: str = "all") -> None:
        self.folder, self.masks = folder, masks
        self.file = _chosen(annotation_files(folder), folder, split)
        images, notes = _contents(self.file)
        files = _files(folder, self.file)
        self.skipped: list[Skipped] = []
        self.images: list[Path] = []
        self.notes: list[Sequence[Mapping[str, Any]]] = []
        for number, name in sorted(images.items(), key=lambda pair: pair[1]):
            file, segments = files(name), notes.pop(number, [])
            if file is None:
                self.skipped.append(Skipped(str(folder / name), f"{self.file.name} names an image that is not there"))
            elif masks and not segments:
                self.skipped.append(Skipped(str(folder / name), f"an image without annotations in {self.file.name}"))
            else:
                self.images.append(file)
                self.notes.append(segments if masks else ())
        for number in notes:
            reason = f"{self.file.name} annotates an image that it does not list"
            self.skipped.append(Skipped(f"{self.file}: image {number}", reason))
        if not self.images:
            first = f"; {self.skipped[0].name}: {self.skipped[0].reason}" if self.skipped else ""
            raise DataError(f"no usable images for {self.file}{first}", hint="put the images beside the annotations")
        taken = [place for place, file in enumerate(self.images) if within(part, file.name)]
        if not taken:
            raise none_in(part, str(self.file))
        self.images, self.notes = [self.images[place] for place in taken], [self.notes[place] for place in taken]
        self.names = [str(file) for file in self.images]

    def __len__(self) -> int:
        return len(self.images)

    def _get(self, index: int) -> MaskedImage:
        file = self.images[index]
        try:
            data = file.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {file}: {error}", hint="it may be gone or protected") from error
        image = decode_image(data, str(file))
        if not self.masks:
            return bare(file.stem, image)
        size = (image.shape[0], image.shape[1])
        try:
            room_for(len(self.notes[index]), size)
            segments = [_segment(note, size) for note in self.notes[index]]
        except (OverflowError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            what = f"cannot use the annotations of {file.name} in {self.file}: {reason}"
            raise DataError(what, hint="every annotation needs a 'segmentation' of polygons or RLE") from error
        masks, points, boxes = zip(*segments, strict=True)
        return MaskedImage(file.stem, image, np.stack(masks), np.array(points, np.float32), np.array(boxes, np.float32))


def deepest(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """The point (x, y) of the non-empty (H, W) mask that is farthest from the outside, the first of equals.

    Outside the image is outside. Euclidean distance transform of the mask's box only.
    """
    from scipy import ndimage  # a second of import that only data need, and every first plan waits for the plug-in

    x0, y0, x1, y1 = (int(side) for side in bounding_box(mask))
    depth = ndimage.distance_transform_edt(np.pad(mask[y0:y1, x0:x1], 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(x0 + column), float(y0 + row)


def _chosen(files: Sequence[Path], folder: Path, split: str) -> Path:
    fitting = list(files) if len(files) == 1 else [file for file in files if split in file.stem]
    if len(fitting) != 1:
        raise DataError(
            f"{len(files)} annotation files in {folder}, {len(fitting)} of them for {split}: "
            + ", ".join(file.name for file in files[:5]),
            hint=f"leave one {_PATTERN}, or one whose name holds {split!r}",
        )
    return fitting[0]


def _contents(file: Path) -> tuple[dict[int, str], dict[int, list[Mapping[str, Any]]]]:
    """Image file names, and annotations that are no crowd, by image number."""
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        images = {int(image["id"]): str(image["file_name"]) for image in table["images"]}
        notes: dict[int, list[Mapping[str, Any]]] = {}
        for note in table["annotations"]:
            if not note.get("iscrowd"):
                notes.setdefault(int(note["image_id"]), []).append(note)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        hint = "COCO lists 'images' with 'id' and 'file_name', 'annotations' with 'image_id'"
        raise DataError(f"cannot use the annotations {file}: {reason}", hint=hint) from error
    return images, notes


def _files(folder: Path, notes: Path) -> Callable[[str], Path | None]:
    """Where an image of that name lies, or None: nothing outside the folder, whatever names or links say."""
    split = notes.stem.removeprefix("instances_")
    places = [folder, folder / "images", folder / split, folder / "images" / split]

    def find(name: str) -> Path | None:
        return next((place / name for place in places if _inside(place, place / name)), None)

    return find


def _inside(place: Path, file: Path) -> bool:
    try:
        return file.is_file() and file.resolve().is_relative_to(place.resolve())
    except (OSError, ValueError):  # a name that no file can have
        return False


def _segment(note: Mapping[str, Any], size: tuple[int, int]) -> tuple[NDArray[np.bool_], Any, Any]:
    """Mask, point and box (x0, y0, x1, y1) of one annotation. An empty mask is prompted in the middle of its box."""
    mask = _mask(note["segmentation"], size)
    if "bbox" in note:
        x, y, width, height = (float(value) for value in note["bbox"])
        box = (x, y, x + width, y + height)
    elif mask.any():
        box = bounding_box(mask)
    else:
        raise ValueError("an empty mask without 'bbox'")
    if note.get("point_coords"):
        x, y = (float(value) for value in note["point_coords"][0])
        return mask, (x, y), box
    return mask, deepest(mask) if mask.any() else ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), box


def _mask(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    from pycocotools import mask as coco

    if isinstance(segmentation, list):
        if not segmentation or any(len(polygon) < 6 or len(polygon) % 2 for polygon in segmentation):
            raise ValueError("a polygon needs three corners x, y or more")
        polygons = [[float(value) for value in polygon] for polygon in segmentation]
        # pycocotools takes memory for every pixel of an outline, wherever that leads
        if not all(-max(size) <= value <= 2 * max(size) for polygon in polygons for value in polygon):
            raise ValueError("a polygon far outside its image")
        drawn = coco.merge(coco.frPyObjects(polygons, *size))
        return decode_rle({"size": size, "counts": drawn["counts"].decode()})
    return decode_rle(segmentation, size)  # pycocotools reads broken runs without a word
