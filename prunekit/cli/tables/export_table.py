"""What was written in another format, and how far its outputs are from the pruned model's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from prunekit.exports import Exported


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
