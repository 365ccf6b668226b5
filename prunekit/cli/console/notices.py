"""What the library says through ``logging``, shown while a command runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prunekit.cli.console.voice import loudness, speaker

if TYPE_CHECKING:
    from rich.console import Console


class _Shown(logging.Handler):
    """Prints each message once."""

    def __init__(self, console: Console | None) -> None:
        super().__init__(logging.DEBUG)
        self._console, self._said = console, set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if self._console is not None and text not in self._said:
            self._said.add(text)
            line = f"{record.levelname.lower()}: {text}"
            self._console.print(line, style="dim", soft_wrap=True)


@contextmanager
def heard(console: Console | None) -> Iterator[None]:
    """Within the block, notices of the library go to ``console``; nowhere if it is None.

    A command that was asked to be quiet still warns, on the standard error.
    """
    logger = logging.getLogger("prunekit")
    asked = loudness()
    handler = _Shown(speaker(stderr=True) if asked.quiet and console is not None else console)
    before = (logger.propagate, logger.level)
    logger.addHandler(handler)
    logger.propagate = False
    if asked.verbose:
        logger.setLevel(logging.INFO if asked.verbose == 1 else logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate, logger.level = before
