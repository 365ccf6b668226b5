"""What the library says through ``logging``, shown while a command runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


class _Shown(logging.Handler):
    """Prints each message once."""

    def __init__(self, console: Console | None) -> None:
        super().__init__(logging.INFO)
        self._console, self._said = console, set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if self._console is not None and text not in self._said:
            self._said.add(text)
            self._console.print(f"[dim]{record.levelname.lower()}:[/] ", end="")
            self._console.print(text, markup=False, highlight=False, style="dim")


@contextmanager
def heard(console: Console | None) -> Iterator[None]:
    """Within the block, notices of the library go to ``console``; nowhere if it is None."""
    logger = logging.getLogger("prunekit")
    handler, before = _Shown(console), (logger.propagate, logger.level)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate, logger.level = before
