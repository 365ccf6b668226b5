"""Names with what is said of them: a table where there is room for one, paragraphs on a narrow terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

MEANING = "what it is"  # the column that needs no word before it
ROOM = 80  # columns of a terminal from which on a table of several columns is read with ease


def show_glossary(console: Console, columns: Sequence[str], rows: Mapping[str, Sequence[str]], title: str = "") -> None:
    """``rows``: name -> a cell a column after the first. No name and no word is cut short."""
    from rich.padding import Padding
    from rich.table import Table

    plain = {name: [cell.replace("``", "") for cell in cells] for name, cells in rows.items()}
    if console.width >= ROOM or len(columns) < 3:
        table = Table(title=title or None, title_justify="left", box=None, header_style="bold")
        for place, column in enumerate(columns):
            table.add_column(column, overflow="fold", no_wrap=place == 0)
        for name, cells in plain.items():
            table.add_row(name, *cells)
        console.print(table)
        return
    for name, cells in plain.items():
        console.print(name, style="bold")
        for column, cell in zip(columns[1:], cells, strict=True):
            if cell:
                text = cell if column == MEANING else f"{column}: {cell}"
                console.print(Padding(text, (0, 0, 0, 2)))
