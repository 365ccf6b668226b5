"""What a folder says about its model: which names rebuild it, and which part was pruned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prunekit.errors import CheckpointError

FORMAT = "prunekit.model/1"
WEIGHTS, PLAN, REPORT, MODEL = "model.safetensors", "plan.json", "report.json", "model.json"


def describe(folder: Path) -> dict[str, Any]:
    """``spec``, ``options``, ``part`` and ``home`` of the model kept in ``folder``. Raises CheckpointError."""
    raw = json_in(folder / MODEL)
    try:
        if raw["format"] != FORMAT:
            raise CheckpointError(f"{folder / MODEL} has another format", hint=f"expected {FORMAT}")
        found = {"spec": str(raw["spec"] or ""), "options": dict(raw["options"]), "part": str(raw["part"])}
        home = raw.get("home")
        if home is not None and not {"name", "values", "says_widths"} <= dict(home).keys():
            raise KeyError("home")
        return {**found, "home": home}
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / MODEL} is not a model description: {error}") from error


def json_in(path: Path) -> Any:
    """The JSON in ``path``. Raises CheckpointError."""
    text = text_of(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}", hint="give a folder that prunekit wrote") from error


def text_of(path: Path) -> str:
    """The text in ``path``. Raises CheckpointError."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"cannot read {path}", hint="give a folder that prunekit wrote") from error
