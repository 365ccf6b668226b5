"""The two texts: Debian's handbook to calibrate and measure on, psalms for text of another kind."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

HANDBOOK = Path("/usr/share/doc/debian-handbook/html/en-US")
SHORTEST = 80  # characters of a paragraph that is read


def handbook(folder: Path = HANDBOOK) -> str:
    """Paragraphs of the handbook in the order of its files, set apart by empty lines."""
    found = []
    for file in sorted(folder.glob("*.html")):
        for part in re.findall(r'<div class="para">(.*?)</div>', file.read_text(encoding="utf-8"), flags=re.DOTALL):
            line = " ".join(html.unescape(re.sub(r"<[^>]+>", "", part)).split())
            if len(line) > SHORTEST:
                found.append(line)
    if not found:
        raise SystemExit(f"no handbook in {folder}; next: apt-get install debian-handbook, or --text FILE")
    return "\n\n".join(found)


def psalms(program: str = "bible") -> str:
    """Psalms 1 to 60 of the King James Bible, a verse a line."""
    if shutil.which(program) is None:
        raise SystemExit(f"there is no {program}; next: apt-get install bible-kjv, or --other FILE")
    done = subprocess.run([program, "-f"], input="psa1:1-psa60:5\n", capture_output=True, text=True, check=True)
    verses = re.findall(r"^Psa\d+:\d+ (.*)$", done.stdout, flags=re.MULTILINE)
    return "\n\n".join(verses)
