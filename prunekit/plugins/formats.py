"""What a plug-in may bring about formats that a pruned model is exported to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # recipes and checkpoints stand above the plug-ins, which bring or are given them as values
    from prunekit.plans.bundle import Bundle


@dataclass(frozen=True)
class Compared:
    """One output of a written model beside the pruned model's, on the same input.

    Attributes:
        name: which output, and of which file.
        difference: the greatest absolute difference.
        largest: the greatest absolute value that the pruned model gave.
    """

    name: str
    difference: float
    largest: float


class Format(Protocol):
    """Writes a pruned model into ``folder`` for use elsewhere, reads it back, and says how far its outputs are off.

    An exporter pictures a finished run; a format is what ``prunekit export --to`` names, and needs no run.
    ``precisions`` are those asked for, of ``"fp32"``, ``"fp16"`` and ``"int8"``. Raises ExportError for what the format
    cannot hold; whatever it raises, the caller removes ``folder``.
    """

    def __call__(self, bundle: Bundle, folder: Path, precisions: Sequence[str]) -> Sequence[Compared]: ...
