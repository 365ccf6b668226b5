"""``prunekit report``: report.html of folders that have none or an old one, and one page that compares several."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunekit.cli.console.voice import busy, speaker
from prunekit.cli.loading.folders import kept_in

if TYPE_CHECKING:
    from collections.abc import Mapping


def write_report(
    folders: Annotated[list[Path], typer.Argument(help="What `prunekit prune` or prunekit.save wrote.")],
    out: Annotated[
        Path | None, typer.Option(help="File; FOLDER/report.html by default, comparison.html of several folders.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON, and nothing else.")] = False,
) -> None:
    """Write report.html for folders, and one page that compares several."""
    from prunekit.errors import InputError
    from prunekit.pages import PAGE, comparison_page, report_page

    console = speaker()
    if out is not None and out.exists() and not out.is_file():  # a device would be replaced by a file
        what = "is a folder" if out.is_dir() else "is no file"
        raise InputError(f"--out {out} {what}", hint="give a file, for example report.html")
    with busy(None if as_json else console, "drawing"):
        held = {str(folder): kept_in(folder) for folder in folders}
        if len(folders) > 1:
            path, text = out or Path("comparison.html"), comparison_page({name: kept[1] for name, kept in held.items()})
        else:
            (plan, told, story) = next(iter(held.values()))
            path, text = out or folders[0] / PAGE, report_page(plan, told, _with_pictures(folders[0], story))
        _put_whole(path, text)
    written = {"written": str(path), "folders": list(held)}
    if as_json:
        import json

        console.file.write(json.dumps(written, indent=1) + "\n")
    else:
        console.print(f"written to {path}", soft_wrap=True)


def _with_pictures(folder: Path, story: Mapping[str, Any]) -> dict[str, Any]:
    """The story; of an older folder, the PNGs that lie in it."""
    import base64

    if story:
        return dict(story)
    pictures = [
        {"caption": path.name, "png": base64.b64encode(path.read_bytes()).decode(), "figures": {}}
        for path in sorted(folder.glob("*.png"))
    ]
    return {"exhibits": [{"name": "pictures of the folder", "pictures": pictures}]} if pictures else {}


def _put_whole(path: Path, text: str) -> None:
    """Writes the whole file or leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
