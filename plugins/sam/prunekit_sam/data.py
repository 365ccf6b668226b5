"""Where samples come from: generated scenes, SA-1B folders and tars, COCO files. Decoded when asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prunekit.errors import DataError
from prunekit.samples import Lazy, Skipped, none_in, within

from . import scenes
from .coco import Coco
from .coco import annotation_files as coco_files
from .sample import MaskedImage, annotated, bare, decode_image, decode_rle
from .tars import Tars

__all__ = ["Coco", "Folder", "GeneratedScenes", "MaskedImage", "Tars", "decode_rle", "found_in"]

_IMAGES = (".jpg", ".jpeg", ".png")


def found_in(path: Path, split: str, limit: int | None = None, part: str = "all") -> Folder | Tars | Coco:
    """What `path` holds: COCO annotations, tars, or else images; masks are read where `split` is "val".

    No more than `limit` images need be found. Of them, only those whose names fall into `part` (`prunekit.samples`).
    Raises `DataError`.
    """
    masks = split == "val"
    if path.suffix == ".tar" and path.is_file():
        return Tars([path], masks, limit, part)
    if not path.is_dir():
        raise DataError(f"no folder at {path}", hint="give a folder of images, of tars or of COCO data; or one .tar")
    if coco_files(path):
        return Coco(path, split, masks, part)
    tars = sorted(path.glob("*.tar"))
    return Tars(tars, masks, limit, part) if tars else Folder(path, masks, part)


class GeneratedScenes(Lazy[MaskedImage]):
    """`count` scenes of `size` x `size` pixels from the stream `seed`; points lie deepest inside their segments."""

    def __init__(self, count: int, seed: int = 0, size: int = 128) -> None:
        if count < 1 or size < 16 or seed < 0:
            what = f"cannot generate {count} scenes of {size} px from seed {seed}"
            raise DataError(what, hint="count >= 1, size >= 16, seed >= 0")
        self.seed, self.size, self._count = seed, size, count

    def __len__(self) -> int:
        return self._count

    def _get(self, index: int) -> MaskedImage:
        scene = scenes.scene(self.seed, index, self.size)
        points = np.array([scenes.point_inside(mask) for mask in scene.masks], np.float32)
        boxes = np.array([scenes.bounding_box(mask) for mask in scene.masks], np.float32)
        return MaskedImage(f"scene-{self.seed}-{index}", scene.image, scene.masks, points, boxes)


class Folder(Lazy[MaskedImage]):
    """A folder in the SA-1B layout, `NAME.jpg` beside `NAME.json`, in the order of the names.

    With `masks=False` only the images are read, and may lack a JSON file. What has lost its other half is left out and
    listed in `skipped`. Of the rest, `part` says which are taken (`prunekit.samples`). A folder with nothing left
    raises `DataError` at once; unreadable content does when it is decoded. `names` are the paths.
    """

    def __init__(self, path: str | Path, masks: bool = True, part: str = "all") -> None:
        self.path, self.masks = Path(path), masks
        if not self.path.is_dir():
            raise DataError(f"no folder at {self.path}", hint="give a folder of NAME.jpg and NAME.json pairs")
        files = sorted(self.path.iterdir())
        images = [file for file in files if file.suffix.lower() in _IMAGES]
        notes = [file for file in files if file.suffix == ".json"]
        if not images:
            raise DataError(f"no images in {self.path}", hint="the folder must hold .jpg or .png files")
        pictured, described = {file.stem for file in images}, {file.stem for file in notes}
        self.skipped = [
            Skipped(str(file), "a JSON file without its image") for file in notes if file.stem not in pictured
        ]
        if masks:
            self.skipped += [
                Skipped(str(f), "an image without its JSON file") for f in images if f.stem not in described
            ]
        self.images = [file for file in images if not masks or file.stem in described]
        if not self.images:
            raise DataError(
                f"{len(self.skipped)} files without their other half in {self.path}, "
                f"and no pair: {Path(self.skipped[0].name).name}",
                hint="every NAME.jpg needs a NAME.json to be validated with; for training images alone are enough",
            )
        self.images = [file for file in self.images if within(part, file.name)]
        self.names = [str(file) for file in self.images]
        if not self.images:
            raise none_in(part, str(self.path))

    def __len__(self) -> int:
        return len(self.images)

    def _get(self, index: int) -> MaskedImage:
        file = self.images[index]
        image = decode_image(_content_of(file), str(file))
        if not self.masks:
            return bare(file.stem, image)
        notes = file.with_suffix(".json")
        return annotated(file.stem, image, _content_of(notes), str(notes))


def _content_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error}", hint="it may be gone or protected") from error
