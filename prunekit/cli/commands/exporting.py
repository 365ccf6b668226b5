"""``prunekit export``: a pruned model for use elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunekit.cli.console.voice import busy, speaker


def export(
    folder: Annotated[Path, typer.Argument(help="What `prunekit prune` wrote.")],
    to: Annotated[str, typer.Option(help="Format; see: prunekit list formats.")],
    out: Annotated[Path, typer.Option(help="Folder for the result; appears only on success.")],
    precision: Annotated[
        list[str] | None, typer.Option(help="fp16 or int8, beside fp32, where the format has them; repeat for more.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was compared as JSON, and nothing else.")] = False,
) -> None:
    """Write a pruned model in another format, read it back, and compare its outputs."""

    from prunekit.cli.console.notices import heard
    from prunekit.cli.tables.export_table import show_exported
    from prunekit.exports import export as write

    console = speaker()
    shown = None if as_json else console
    with heard(shown), busy(shown, f"writing {to}, and reading it back"):
        done = write(folder, to, out, precisions=tuple(precision or ()))
    if as_json:
        import json
        from dataclasses import asdict

        console.file.write(json.dumps({**asdict(done), "out": str(out)}, indent=1) + "\n")
    else:
        show_exported(console, done)
        console.print(f"kept in {out}", soft_wrap=True)
