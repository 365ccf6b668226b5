"""``prunekit run``: a whole run out of one YAML file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer


def run_file(
    file: Annotated[Path, typer.Argument(help="YAML: docs/run.md, or run.yaml of any folder that a run wrote.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the result, in place of the file's.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ..., in place of the file's.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, in place of the file's; repeat for more.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Plan it, time a few steps, say what it would take; write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")] = False,
) -> None:
    """Do a whole run that a YAML file describes."""
    from prunekit.cli.running.one_run import do_run
    from prunekit.recipes import parse
    from prunekit.runfiles import read_run

    asked = read_run(file)
    instead: dict[str, Any] = {name: value for name, value in (("out", out), ("device", device)) if value is not None}
    settings_of = {**asked.settings, **parse(settings or [])}
    do_run(replace(asked, **instead, settings=settings_of), resume=resume, dry_run=dry_run, as_json=as_json)
