"""Where in a file something was said, for errors about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from prunekit.errors import PrunekitError


@dataclass(frozen=True)
class Spot:
    """A file, a line counted from 1, and the key that stands there."""

    file: str
    line: int
    key: str = ""

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}" + (f", {self.key}" if self.key else "")


@dataclass(frozen=True)
class Spots:
    """Where each key of a run was said; empty for a run that no file describes."""

    of: Mapping[str, Spot] = field(default_factory=dict)

    @contextmanager
    def about(self, *keys: str) -> Iterator[None]:
        """Errors that leave the block say where the first of ``keys`` that was said stands, and keep their kind."""
        try:
            yield
        except PrunekitError as error:
            spot = next((self.of[key] for key in keys if key in self.of), None)
            if spot is None or error.where.startswith(spot.file):
                raise
            raise type(error)(error.what, where=str(spot), hint=error.hint) from error
