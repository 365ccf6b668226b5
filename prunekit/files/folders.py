"""Folders that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prunekit.errors import CheckpointError

RESULT = "plan.json"  # a folder with this file is a pruned model, and may be replaced by another


@contextmanager
def new_folder(folder: Path, mark: str = RESULT) -> Iterator[Path]:
    """A folder to write into that becomes ``folder`` at the end of the block, or vanishes if the block fails.

    An earlier result at ``folder``, told by its file ``mark``, is replaced only then. Raises CheckpointError where
    ``folder`` holds anything else.
    """
    check_target(folder, mark)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise CheckpointError(f"cannot write to {folder}: {error.strerror}") from error
    try:
        draft.chmod(0o755)  # mkdtemp makes it private; a result is as readable as any other output
        yield draft
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def check_target(folder: Path, mark: str = RESULT) -> None:
    """Raise CheckpointError where ``folder`` exists and is neither empty nor an earlier result."""
    if folder.is_symlink() and not folder.exists():
        raise CheckpointError(f"{folder} is a link to nothing", hint="choose another output folder")
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir():
        raise CheckpointError(f"{above} is a file, and {folder} would lie in it", hint="choose another output folder")
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file, not a folder", hint="choose another output folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).is_file():
        raise CheckpointError(f"{folder} is not empty and holds no earlier result", hint="choose another output folder")
