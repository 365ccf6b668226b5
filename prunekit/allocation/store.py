"""Damages by plan and batch, kept over calls: in memory, and in a file where one is named."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from prunekit.errors import InputError
from prunekit.plans.contents import Plan

logger = logging.getLogger(__name__)

STORED = "prunekit.damages/1"
SECONDS = 10.0  # between two writings of the file while damages are measured


@dataclass(eq=False)
class DamageStore:
    """(amount, weight) by key, see ``Divergence``.

    ``identity`` names the model, the data and the measure: with another one nothing is known.
    """

    file: Path | None
    identity: str
    _known: dict[str, tuple[float, float]] = field(default_factory=dict)
    _saved: float = field(default_factory=lambda: time.monotonic())

    @classmethod
    def of(cls, file: str | Path | None, identity: str) -> DamageStore:
        """What the file holds for this identity. Raises InputError where it is another kind of file."""
        found = cls(None if file is None else Path(file), identity)
        found._known.update(found._in_the_file())
        return found

    def _in_the_file(self) -> dict[str, tuple[float, float]]:
        if self.file is None or not self.file.is_file():
            return {}
        try:
            told = json.loads(self.file.read_text())
            if told["format"] != STORED:
                raise ValueError("another format")
            return {str(k): _pair_of(v) for k, v in told["damages"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"this is no file of damages: {error}", where=str(self.file), hint="name another file, or remove it"
            ) from error

    def key(self, plan: Plan, more: str = "") -> str:
        """The name of a plan's damage: what it changes, not what is told beside."""
        changes = [getattr(plan, each.name) for each in fields(plan) if each.name not in ("widths", "frozen")]
        return hashlib.sha256(f"{self.identity}{changes}{more}".encode()).hexdigest()[:32]

    def get(self, key: str) -> tuple[float, float] | None:
        """What is known, if anything."""
        return self._known.get(key)

    def put(self, key: str, lost: tuple[float, float]) -> None:
        """From now on this is known. What a run that is killed has measured is in the file but for its last seconds."""
        self._known[key] = lost
        if time.monotonic() - self._saved > SECONDS:
            self.save()

    def save(self) -> None:
        """Writes what is known, all or nothing, with what others have written meanwhile.

        One call measures widths and blocks by stores of their own. Raises InputError where the file is another now.
        """
        if self.file is None:
            return
        self._saved = time.monotonic()
        self._known = self._in_the_file() | self._known
        told = {k: [a if math.isfinite(a) else None, w] for k, (a, w) in self._known.items()}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        beside = self.file.with_name(f"{self.file.name}.{os.getpid()}.part")
        beside.write_text(json.dumps({"format": STORED, "damages": told}, indent=0) + "\n")
        os.replace(beside, self.file)


def _pair_of(pair: Any) -> tuple[float, float]:
    """Infinity is not JSON, and stands there as nothing."""
    amount, weight = pair
    return (math.inf if amount is None else float(amount), float(weight))
