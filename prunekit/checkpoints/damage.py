"""Checksums of a folder's files, so that a damaged one is never handed out as a model."""

from __future__ import annotations

import hashlib
from pathlib import Path

from prunekit.checkpoints.description import PLAN, WEIGHTS, json_in
from prunekit.errors import CheckpointError

CHECKSUMS = "checksums.json"


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that make the model, by name."""
    return {name: _digest(folder / name) for name in (WEIGHTS, PLAN)}


def check_damage(folder: Path) -> None:
    """Raises CheckpointError where a file is not the one that was written. Folders of 0.1.0 have no checksums."""
    if not (folder / CHECKSUMS).is_file():
        return
    told = json_in(folder / CHECKSUMS)
    for name, digest in told.items() if isinstance(told, dict) else []:
        path = folder / str(name)
        if path.is_file() and _digest(path) != digest:
            raise CheckpointError(
                f"{path} is damaged: its bytes are not those that were written", hint="copy or save the folder again"
            )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
