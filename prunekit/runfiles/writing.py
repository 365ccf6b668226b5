"""A run written down, so that it can be done again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunekit.runfiles.asked_run import ExportAsked, RunFile
from prunekit.runfiles.keys import run_keys


def run_text(asked: RunFile, head: str = "") -> str:
    """YAML that ``read_run`` reads as ``asked``; ``head`` stands above it as a comment.

    Paths are as they were given: from the folder where the command was run.
    """
    import yaml

    given: dict[str, Any] = {**vars(asked), **asked.options}
    said = {name: _as_written(given[name]) for name in run_keys() if given.get(name) not in (None, (), {})}
    body: str = yaml.safe_dump(said, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110)
    return "".join(f"# {line}\n" for line in head.splitlines()) + body


def _as_written(value: Any) -> Any:
    """Values that YAML has."""
    if isinstance(value, ExportAsked):
        return {name: _as_written(each) for name, each in vars(value).items() if each != ()}
    if isinstance(value, Mapping):
        return {str(name): _as_written(each) for name, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [_as_written(each) for each in value]
    return str(value) if isinstance(value, Path) else value
