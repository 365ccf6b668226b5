"""One folder in three parts: a file's part depends on the stem of its name alone, so that no run can shift it."""

from __future__ import annotations

import hashlib
from pathlib import PurePath

from prunekit.errors import DataError, InputError

SPLITS = ("all", "train", "val", "test")
_PARTS = 10  # one for test, one for val, the rest for train


def split_of(name: str) -> str:
    """``"train"``, ``"val"`` or ``"test"`` for a file name or its stem: 80, 10 and 10 % by SHA-256."""
    part = int(hashlib.sha256(PurePath(name).stem.encode()).hexdigest(), 16) % _PARTS
    return {0: "test", 1: "val"}.get(part, "train")


def within(split: str, name: str) -> bool:
    """Whether the file ``name`` belongs to ``split``, one of ``SPLITS``. Raises InputError for another."""
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}", hint=f"one of {', '.join(SPLITS)}")
    return split in ("all", split_of(name))


def none_in(part: str, where: str) -> DataError:
    """The error for data of which nothing falls into ``part``."""
    return DataError(f"nothing of {where} is in the part {part!r}", hint="parts go by names and numbers: give more")
