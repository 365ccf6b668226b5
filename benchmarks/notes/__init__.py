"""What a person has to say of figures that a command writes: a text beside it, put into the page at every run."""

from __future__ import annotations

from pathlib import Path


def note_on(page: Path) -> str:
    """The note on a page of docs, with an empty line before it; empty where there is none."""
    held = Path(__file__).with_name(f"{page.stem}.txt")
    return f"\n{held.read_text().strip()}\n" if held.exists() else ""
