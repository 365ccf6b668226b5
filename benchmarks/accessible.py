"""What axe-core finds in pages that prunekit writes and in its documentation: ``make accessible``, after ``make docs``.

Every kind of report (``benchmarks/sample_pages.py``), that of ``make demo`` where it lies, and every page of the site,
light and dark, by axe-core's own default rules. Ends with 1 where it finds anything, or where a page asks the network.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from benchmarks.browser import THEMES, chromium, looked_at
from benchmarks.sample_pages import sample_pages

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = 3  # places that are printed of each rule that is broken
OPEN = "document.querySelectorAll('details').forEach(each => { each.open = true })"


@dataclass(frozen=True)
class Violation:
    """One element of one page that breaks a rule."""

    rule: str
    impact: str
    help: str
    page: str
    theme: str
    element: str


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of ``folder``, for this machine alone: a page of what is not found names its parts from the root."""
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def found_in(started: Any, name: str, at: Path | str, theme: str) -> list[Violation]:
    """What one page breaks in one theme, with everything open; asking the network breaks a rule of ours."""
    with looked_at(started, at, theme=theme) as seen:
        seen.page.evaluate(OPEN)
        asked = [Violation("no-network", "serious", "a page fetches nothing", name, theme, url) for url in seen.asked]
        return asked + [
            Violation(each["id"], each["impact"], each["help"], name, theme, " ".join(map(str, node["target"])))
            for each in seen.violations()
            for node in each["nodes"]
        ]


def lines_of(found: Iterable[Violation]) -> list[str]:
    """A line a rule, with how many elements of how many pages break it, and the first of them."""
    by_rule: dict[str, list[Violation]] = {}
    for each in found:
        by_rule.setdefault(each.rule, []).append(each)
    lines = []
    for rule, every in by_rule.items():
        pages = len({each.page for each in every})
        lines.append(f"{rule} ({every[0].impact}): {every[0].help}; {len(every)} elements on {pages} pages")
        lines += [f"    {each.page}, {each.theme}: {each.element}" for each in every[:EXAMPLES]]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", type=Path, default=ROOT / "site", help="what mkdocs built")
    parser.add_argument("--only", default="", help="pages with this in their names")
    given = parser.parse_args()
    if not given.site.is_dir():
        raise RuntimeError(f"there is no {given.site}: make docs builds it")
    demo = ROOT / "out" / "demo" / "report.html"
    with tempfile.TemporaryDirectory() as folder, served(given.site) as address, chromium() as started:
        pages: dict[str, Path | str] = {f"report of {kind}": path for kind, path in sample_pages(Path(folder)).items()}
        pages |= {"report of make demo": demo} if demo.is_file() else {}
        parts = [str(path.relative_to(given.site)) for path in sorted(given.site.rglob("*.html"))]
        pages |= {f"docs/{part}": address + part for part in parts}
        pages = {name: path for name, path in pages.items() if given.only in name}
        began, found = time.monotonic(), []
        for number, (name, at) in enumerate(pages.items(), 1):
            here = [each for theme in THEMES for each in found_in(started, name, at, theme)]
            found += here
            print(f"{number}/{len(pages)}  {name}  {len(here)} violations", flush=True)
    print("\n".join(lines_of(found)))
    print(f"{len(pages)} pages, {len(THEMES)} themes, {len(found)} violations, {time.monotonic() - began:.0f} s")
    return bool(found)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as error:
        sys.exit(str(error))
