"""Headless Chromium of the system, driven by Playwright, for tests, ``make screenshots`` and ``make accessible``."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# a browser that is started for one page asks nobody for updates
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
THEMES = ("light", "dark")
NOTHING = ("data:", "file:", "blob:", "about:")  # addresses that reach no network


def program() -> str | None:
    """Where the browser is."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def lacking() -> str:
    """What has to be installed before a page can be looked at; "" where nothing has to."""
    if program() is None:
        return "no browser: apt-get install chromium"
    if find_spec("playwright") is None or find_spec("axe_playwright_python") is None:
        return "nothing drives the browser: pip install -c constraints.txt '.[browser]'"
    return ""


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of Playwright, with an empty profile. Raises RuntimeError that says what is lacking."""
    if what := lacking():
        raise RuntimeError(what)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program(), args=list(FLAGS))
        try:
            yield started
        finally:
            started.close()


@dataclass(frozen=True)
class Seen:
    """An open page and what it has said and asked for so far."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @property
    def overflow(self) -> int:
        """Pixels that the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def violations(self) -> list[Any]:
        """What axe-core finds, by its own default rules: id, impact, help and nodes of each."""
        from axe_playwright_python.sync_playwright import Axe

        return list(Axe().run(self.page).response["violations"])


@contextmanager
def looked_at(
    started: Any, at: Path | str, *, width: int = 1100, height: int = 900, theme: str = "light", scale: float = 1
) -> Iterator[Seen]:
    """The page ``at`` a path or an address, in a window of its own, as one who prefers ``theme`` and no motion gets it.

    ``scale`` pixels of the device make one of the page.
    """
    window = started.new_context(
        viewport={"width": width, "height": height},
        color_scheme=theme,
        reduced_motion="reduce",
        device_scale_factor=scale,
    )
    try:
        seen = Seen(window.new_page())
        seen.page.on("console", lambda message: seen.said.append(f"{message.type}: {message.text}"))
        seen.page.on("pageerror", lambda error: seen.said.append(f"error: {error}"))
        address = at.resolve().as_uri() if isinstance(at, Path) else at
        own = (*NOTHING, re.sub("(//[^/]*/).*", r"\1", address))  # the server of a site may be asked for its parts
        seen.page.on("request", lambda request: request.url.startswith(own) or seen.asked.append(request.url))
        seen.page.goto(address)
        yield seen
    finally:
        window.close()
