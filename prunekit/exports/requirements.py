"""What a format may lack: libraries that only some formats need, and precisions."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from prunekit.errors import ExportError


def optional(name: str, install: str) -> Any:
    """The module ``name``. Raises ExportError that says how to ``install`` it where it cannot be imported."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExportError(f"{name} cannot be imported: {error}", hint=f"pip install '{install}'") from error


def only_fp32(precisions: Sequence[str], to: str) -> None:
    """Raise ExportError where another precision than fp32 is asked of a format that has no other."""
    if others := [name for name in precisions if name != "fp32"]:
        raise ExportError(f"format {to} is written in fp32, not {', '.join(others)}", hint="leave out --precision")
