"""``prunekit export``: a pruned model for use elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunekit.cli.voice import busy, speaker

if TYPE_CHECKING:
    from rich.console import Console

    from prunekit.exports import Exported


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

    from prunekit.cli.notices import heard
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
        console.print(f"kept in {out}")


def show_exported(console: Console, done: Exported) -> None:
    """How far each output is from the pruned model's, and the files."""
    from rich.table import Table

    table = Table(title=f"{done.spec or 'model'} as {done.to}, beside the pruned model", title_justify="left")
    table.add_column("output", overflow="fold")
    table.add_column("greatest difference", justify="right")
    table.add_column("largest output", justify="right")
    for found in done.compared:
        table.add_row(found.name, f"{found.difference:.2g}", f"{found.largest:.3g}")
    console.print(table)
    console.print(f"{', '.join(done.files)}", style="dim")
