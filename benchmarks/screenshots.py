"""Pictures under docs/img: ``make screenshots``, after ``make demo``.

report.html in a real browser, where there is one, and commands as a terminal shows them, which need none.
"""

import argparse
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.browser import chromium, looked_at

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = 96
COMMANDS = {
    "trace": "trace timm:resnet10t",
    "plan": "plan timm:resnet10t --ratio 0.3 --scorer magnitude",
    "mistake": "prune timm:resnet10t --rato 0.3",
}


@dataclass(frozen=True)
class Shot:
    """What is looked at: a window, a theme, the heading that it begins at, and the tile that is pointed at."""

    width: int
    height: int
    theme: str = "light"
    heading: str = ""
    pointed: int | None = None
    scale: float = 1


SHOTS = {
    "desktop": Shot(1100, 1300),
    "phone": Shot(390, 844, scale=2),
    "dark": Shot(1100, 1060, "dark", heading="#map", pointed=3),
}


def shoot(page: Path, out: Path) -> list[Path]:
    """One picture a shot, of 256 colours. Raises RuntimeError without a browser."""
    from PIL import Image

    out.mkdir(parents=True, exist_ok=True)
    made = []
    with chromium() as started:
        for name, shot in SHOTS.items():
            window = {"width": shot.width, "height": shot.height, "theme": shot.theme, "scale": shot.scale}
            with looked_at(started, page, **window) as seen:
                if shot.heading:
                    seen.page.locator(shot.heading).evaluate("each => scrollTo(0, each.offsetTop - 24)")
                if shot.pointed is not None:
                    seen.page.locator("details.group summary").nth(shot.pointed).hover()
                picture = Image.open(io.BytesIO(seen.page.screenshot())).convert("RGB")
            target = out / f"report-{name}.png"
            picture.quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)
            made.append(target)
    return made


def _settled_output(text: str) -> str:
    """What is left on a terminal once nothing moves any more: without the frames of spinners."""
    lines = re.sub(r"\x1b\[(\?25[lh]|2K|1A)", "", text).replace("\r", "\n").splitlines()
    kept = [line for line in lines if not re.search("[\u2800-\u28ff]", line)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip("\n")


def terminal_shots(out: Path) -> list[Path]:
    """One SVG a command: what it prints, in colour. No font is fetched: the reader's own monospaced one is taken."""
    from rich._export_format import CONSOLE_SVG_FORMAT
    from rich.console import Console
    from rich.text import Text

    plain = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.S).replace("Fira Code", "monospace")
    out.mkdir(parents=True, exist_ok=True)
    made = []
    with tempfile.TemporaryDirectory() as folder:
        for name, line in COMMANDS.items():
            environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
            command = [sys.executable, "-m", "prunekit", *shlex.split(line)]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
            console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
            console.print(f"[bold]$ prunekit {line}[/]", highlight=False, soft_wrap=True)
            console.print(Text.from_ansi(_settled_output(done.stderr + done.stdout)), end="\n\n")  # room for descenders
            target = out / f"cli-{name}.svg"
            target.write_text(console.export_svg(title="prunekit", code_format=plain, unique_id=name))
            made.append(target)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, default=ROOT / "out" / "demo" / "report.html")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "img")
    given = parser.parse_args()
    for path in terminal_shots(given.out):
        print(path)
    try:
        for path in shoot(given.page, given.out):
            print(path)
    except RuntimeError as error:
        sys.exit(f"{error}; the pictures of report.html are as they were")
