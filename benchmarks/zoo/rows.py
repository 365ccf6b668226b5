"""The list of architectures, and the module beside it that builds one."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

DEFAULT_LIST = Path(__file__).resolve().parents[2].parent / "shared" / "zoo" / "zoo.json"
OUTSIDE_LIST = Path(__file__).with_name("outside") / "zoo.json"


@dataclass(frozen=True)
class Row:
    """One architecture of the list; ``skipped`` says why it is not run, empty where it is."""

    name: str
    entry: dict[str, Any]
    skipped: str = ""


class ListError(Exception):
    """The list, or the module that builds its rows, cannot be read."""


def read_rows(path: Path, only: str = "", heavy: bool = False) -> list[Row]:
    """Rows of a list file whose names match ``only``: the full-size rows if ``heavy``, else all others."""
    if not path.is_file():
        raise ListError(
            f"there is no list {path.name}: put the folder shared/zoo beside the checkout, or pass --list FILE"
        )
    return [
        Row(entry["name"], entry, _skipped(entry))
        for entry in json.loads(path.read_text())
        if re.search(only, entry["name"]) and bool(entry.get("heavy")) == heavy
    ]


def read_row(path: Path, name: str) -> Row:
    """The row of that name."""
    return next(r for heavy in (False, True) for r in read_rows(path, f"^{re.escape(name)}$", heavy))


def _skipped(entry: dict[str, Any]) -> str:
    if entry.get("broken"):
        return f"broken in its library: {entry['broken']}"
    return "too big for the machines that the list is made for" if entry.get("too_big") else ""


def builder(path: Path) -> ModuleType:
    """The module ``zoo.py`` beside the list: ``build(entry)`` and ``make_inputs(entry, batch)``."""
    source = path.with_name("zoo.py")
    spec = importlib.util.spec_from_file_location("zoo_builder", source)
    if not source.is_file() or spec is None or spec.loader is None:
        raise ListError(f"there is no {source.name} beside {path.name}: it builds the rows")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
