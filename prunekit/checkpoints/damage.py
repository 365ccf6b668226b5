"""Checksums of a folder's files, so that a damaged one is never handed out as a model."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from prunekit.checkpoints.description import MODEL, PLAN, WEIGHTS, json_in
from prunekit.errors import CheckpointError

CHECKSUMS = "checksums.json"
logger = logging.getLogger(__name__)


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that make the model, by name."""
    return {name: _digest(folder / name) for name in (WEIGHTS, PLAN, MODEL)}


def check_damage(folder: Path) -> None:
    """Raises CheckpointError where a file is not the one that was written. Folders of 0.1.0 have no checksums."""
    if not (folder / CHECKSUMS).is_file():
        logger.warning("%s has no checksums, as folders of prunekit 0.1.0: damage cannot be told", folder)
        return
    told = json_in(folder / CHECKSUMS)
    if not isinstance(told, dict) or not {WEIGHTS, PLAN} <= told.keys():
        raise CheckpointError(f"{folder / CHECKSUMS} is damaged", hint="copy or save the folder again")
    for name in (WEIGHTS, PLAN, MODEL):
        path = folder / name
        if name in told and path.is_file() and _digest(path) != told[name]:
            raise CheckpointError(
                f"{path} is damaged: its bytes are not those that were written", hint="copy or save the folder again"
            )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
