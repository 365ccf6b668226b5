"""The tars in which SA-1B is distributed: images and JSON files in any order, read where they lie."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from prunekit.errors import DataError
from prunekit.samples import Lazy, Skipped, none_in, within

from .sample import MaskedImage, annotated, bare, decode_image

IMAGES = (".jpg", ".jpeg", ".png")
NOTES = ".json"
_KEPT = 4096  # indices of tars that a process remembers
_LARGEST = 2**28  # bytes of one image or JSON file; what claims more is left out before anything is read of it


@dataclass(frozen=True, eq=False)
class Index:
    """Where the images of one tar lie, by name, and where their JSON files do. 64 bytes or so an image.

    `names` (n,) are the members' names as UTF-8 bytes; `images` and `notes` (n, 2) are offset and size in bytes, with
    size -1 for a JSON file that is missing; `orphans` are JSON files without an image; `fault` says why the tar could
    not be read to its end, or is empty.
    """

    names: NDArray[np.bytes_]
    images: NDArray[np.int64]
    notes: NDArray[np.int64]
    orphans: tuple[str, ...]
    fault: str


def index_of(tar: Path) -> Index:
    """The index of an uncompressed tar, built once a process for as long as the file stays the same."""
    try:
        state = tar.stat()
    except OSError as error:
        raise DataError(f"cannot read {tar}: {error}", hint="it may be gone or protected") from error
    return _index(tar, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=_KEPT)
def _index(tar: Path, size: int, changed: int) -> Index:
    images: dict[str, tuple[str, int, int]] = {}
    notes: dict[str, tuple[str, int, int]] = {}
    fault = ""
    try:
        with tarfile.open(tar, "r:") as members:
            for member in members:
                stem, suffix = halves(member.name)
                table = images if suffix in IMAGES else notes if suffix == NOTES else None
                if not member.isreg() or table is None:
                    continue
                if not 0 <= member.size <= min(_LARGEST, size - member.offset_data):
                    fault = fault or f"{member.name} claims {member.size} bytes: left out"
                else:
                    table[stem] = (member.name, member.offset_data, member.size)
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        fault = f"not readable as an uncompressed tar to its end: {error}"
    stems = sorted(images)
    return Index(
        np.array([images[stem][0].encode() for stem in stems], np.bytes_),
        np.array([images[stem][1:] for stem in stems], np.int64).reshape(-1, 2),
        np.array([notes[stem][1:] if stem in notes else (0, -1) for stem in stems], np.int64).reshape(-1, 2),
        tuple(sorted(notes[stem][0] for stem in notes.keys() - images.keys())),
        fault,
    )


def halves(name: str) -> tuple[str, str]:
    """What an image and its JSON file share of a member's name, and the suffix in lower case."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")), path.suffix.lower()


class Tars(Lazy[MaskedImage]):
    """The images of several tars with random access, tars in the order given and members by name.

    Tars are indexed in turn until `limit` images are found. With `masks=False` images may lack a JSON file. What has
    lost its other half, and a tar that is broken, is left out and listed in `skipped`; what comes before the break is
    used. Of the rest, `part` says what is taken (`prunekit.samples`). Nothing left raises `DataError` at once;
    unreadable content does when it is decoded.
    """

    def __init__(self, tars: Sequence[Path], masks: bool = True, limit: int | None = None, part: str = "all") -> None:
        self.masks, self.part, self.skipped = masks, part, list[Skipped]()
        self._tars: list[Path] = []
        self._usable: list[NDArray[np.int64]] = []  # rows of each tar's index
        found = usable = 0
        for tar in tars:
            if limit is not None and found >= limit:
                break
            rows = self._sifted(tar)
            usable += len(rows)
            rows = self._taken(tar, rows)
            found += len(rows)
            self._tars.append(tar)
            self._usable.append(rows)
        self._ends = np.cumsum([len(rows) for rows in self._usable])
        if usable and not found:
            raise none_in(part, ", ".join(str(tar) for tar in tars[:3]))
        if not found:
            first = f"; {self.skipped[0].name}: {self.skipped[0].reason}" if self.skipped else ""
            raise DataError(
                f"no usable images in {', '.join(str(tar) for tar in tars[:3])}{first}",
                hint="the tars must hold .jpg or .png files, to be validated with each with its .json",
            )

    def _sifted(self, tar: Path) -> NDArray[np.int64]:
        """The rows of the tar's index that can be used; the others are noted."""
        index = index_of(tar)
        if index.fault:
            self.skipped.append(Skipped(str(tar), index.fault))
        self.skipped += [
            Skipped(f"{tar}/{PurePosixPath(name)}", "a JSON file without its image") for name in index.orphans
        ]
        alone = index.notes[:, 1] < 0
        if not self.masks:
            return np.arange(len(alone))
        for name in index.names[alone]:
            self.skipped.append(Skipped(f"{tar}/{PurePosixPath(name.decode())}", "an image without its JSON file"))
        return np.flatnonzero(~alone)

    def _taken(self, tar: Path, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the rows whose names fall into the part that is wanted."""
        if self.part == "all":
            return rows
        names = index_of(tar).names
        return np.array([row for row in rows if within(self.part, names[row].decode())], np.int64)

    @property
    def names(self) -> Sequence[str]:
        """The tar's path and the member's name of each item, as `Skipped` has it."""
        return _Names(self)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def place(self, index: int) -> tuple[Path, Index, int]:
        """The tar that item `index` lies in, that tar's index, and the row of it."""
        number = int(np.searchsorted(self._ends, index, "right"))
        start = int(self._ends[number - 1]) if number else 0
        tar = self._tars[number]
        return tar, index_of(tar), int(self._usable[number][index - start])

    def _get(self, index: int) -> MaskedImage:
        tar, table, row = self.place(index)
        member = table.names[row].decode()
        stem = PurePosixPath(member).stem
        image = decode_image(_content(tar, *table.images[row]), f"{tar}/{PurePosixPath(member)}")
        if not self.masks:
            return bare(stem, image)
        where = f"{tar}/{PurePosixPath(member).with_suffix(NOTES)}"
        return annotated(stem, image, _content(tar, *table.notes[row]), where)


class _Names(Lazy[str]):
    def __init__(self, tars: Tars) -> None:
        self.tars = tars

    def __len__(self) -> int:
        return len(self.tars)

    def _get(self, index: int) -> str:
        tar, table, row = self.tars.place(index)
        return f"{tar}/{PurePosixPath(table.names[row].decode())}"


def _content(tar: Path, offset: int, size: int) -> bytes:
    """The bytes of one member; fewer where the tar is broken off."""
    try:
        with tar.open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError as error:
        raise DataError(f"cannot read {tar}: {error}", hint="it may be gone or protected") from error
