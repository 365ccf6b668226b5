"""Folders that are written whole or not at all, with a checksum of every file; what others put there stays."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from prunekit.errors import CheckpointError
from prunekit.files.disk import disk_faults, exchanged, flushed, flushed_tree

RESULT = "plan.json"  # a folder with this file is a pruned model, and may be replaced by another
CHECKSUMS = "checksums.json"  # SHA-256 of every other file of a folder by name: what prunekit wrote, and how
_LISTED_BEFORE = {"model.safetensors", RESULT, "model.json"}


@contextmanager
def new_folder(folder: Path, mark: str = RESULT, known: Mapping[str, Future[str]] | None = None) -> Iterator[Path]:
    """A folder to write into that becomes ``folder`` at the end of the block, or vanishes if the block fails.

    An earlier result at ``folder``, told by its file ``mark``, is replaced only then, in one step and after everything
    has reached the disk. Files in it that prunekit did not write are moved into the new one. ``known`` are the
    checksums that the block has begun to compute itself, by name. Raises CheckpointError where ``folder`` holds
    anything else, and where the disk refuses.
    """
    check_target(folder, mark)
    folder = folder.resolve()  # a link is followed once, not replaced
    lost = f"{folder} is as it was" if folder.exists() else "nothing was written"
    with disk_faults(folder, lost):
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    new = draft.stat().st_ino
    try:
        with disk_faults(folder, lost):
            yield draft
            as_readable_as_others(draft)
            _seal(draft, known or {})
            replaced = folder.is_dir() and any(folder.iterdir())
            if replaced:
                exchanged(draft, folder)
            else:
                os.replace(draft, folder)
            flushed(folder.parent)
            if replaced:
                _cleared(draft, folder)
    except BaseException:
        if draft.is_dir() and draft.stat().st_ino == new:  # what was there before is not scratch
            shutil.rmtree(draft, ignore_errors=True)
        raise


def _seal(draft: Path, known: Mapping[str, Future[str]]) -> None:
    """Lists the checksum of every file, and all reaches the disk: the files while another thread reads them."""
    with ThreadPoolExecutor(1) as beside:
        told = beside.submit(checksums, draft, known)
        flushed_tree(draft)
        (draft / CHECKSUMS).write_text(json.dumps(told.result(), indent=1) + "\n")
    flushed(draft / CHECKSUMS)
    flushed(draft)


def as_readable_as_others(folder: Path) -> None:
    """Gives ``folder`` and all in it what the umask grants: mkdtemp and safetensors make theirs private."""
    mask = os.umask(0o077)  # it can only be read by setting it, and meanwhile nothing should be more open
    os.umask(mask)
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o777 if path.is_dir() else 0o666) & ~mask)


def check_target(folder: Path, mark: str = RESULT) -> None:
    """Raise CheckpointError where ``folder`` exists and is neither empty nor an earlier result."""
    with disk_faults(folder, "nothing was written"):
        _check_place(folder, mark)


def _check_place(folder: Path, mark: str) -> None:
    if folder.is_symlink() and not folder.exists():
        raise CheckpointError(f"{folder} is a link to nothing", hint="choose another output folder")
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir():
        raise CheckpointError(f"{above} is a file, and {folder} would lie in it", hint="choose another output folder")
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file, not a folder", hint="choose another output folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).is_file():
        raise CheckpointError(f"{folder} is not empty and holds no earlier result", hint="choose another output folder")


def checksums(folder: Path, known: Mapping[str, Future[str]]) -> dict[str, str]:
    """SHA-256 of every file below ``folder`` by name, but of the file that keeps them."""
    names = [name for name in _files_below(folder) if name != CHECKSUMS]
    return {name: known[name].result() if name in known else digest(folder / name) for name in names}


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes: at one go and without a copy where it can be mapped, so that other threads run on."""
    with path.open("rb") as file:
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (ValueError, OSError):  # an empty file, or a file system that maps none
            return hashlib.file_digest(file, "sha256").hexdigest()
        with mapped:
            return hashlib.sha256(mapped).hexdigest()


def _cleared(old: Path, new: Path) -> None:
    """Removes ``old``, after what prunekit did not write there is in ``new``; under NAME.before where NAME is taken."""
    written = _listed_in(old, new)
    for name in _files_below(old):
        if name not in written:
            place = new / name
            place = place if not os.path.lexists(place) else place.with_name(f"{place.name}.before")
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(old / name, place)
    shutil.rmtree(old, ignore_errors=True)


def _listed_in(old: Path, new: Path) -> Collection[str]:
    """What prunekit wrote in ``old``: what it lists. 0.1 listed less; there, what is written again was its own."""
    try:
        listed = set(json.loads((old / CHECKSUMS).read_text()))
    except (OSError, ValueError, TypeError):
        listed = set()
    return listed | {CHECKSUMS} | (set() if listed - _LISTED_BEFORE else set(_files_below(new)))


def _files_below(folder: Path) -> list[str]:
    """Files below ``folder``, links among them, by their paths from it."""
    found = (file for file in folder.rglob("*") if file.is_symlink() or not file.is_dir())
    return sorted(file.relative_to(folder).as_posix() for file in found)
