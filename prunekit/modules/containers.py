"""Lists and sequences of modules: their entries, and the names that entries have when some are gone."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from torch import nn

_NUMBERED = re.compile(r"(.*?)(\d+)$")


def containers_of(modules: Iterable[tuple[str, nn.Module]]) -> dict[str, tuple[str, ...]]:
    """The names of the entries of every ``ModuleList`` and ``Sequential`` by its path; "" is the model itself.

    Of a ``ModuleDict`` too, where its names are one word and numbers that count.
    """
    return {
        path: tuple(module._modules)
        for path, module in modules
        if len(module._modules) > 1
        if isinstance(module, (nn.ModuleList, nn.Sequential))
        or (isinstance(module, nn.ModuleDict) and _are_counted(tuple(module._modules)))
    }


def names_left(names: Sequence[str], kept: Sequence[int]) -> list[str]:
    """The names of the entries ``kept`` in a container that was built with these alone.

    Numbered entries (``0``, ``1``; ``block0``, ``block1``) are numbered anew; names of any other kind stay.
    """
    return list(names[: len(kept)]) if _are_counted(names) else [names[index] for index in kept]


def _are_counted(names: Sequence[str]) -> bool:
    """Whether names are numbered, one after another and after the same word."""
    parts = [_NUMBERED.fullmatch(name) for name in names]
    numbers = [int(part[2]) for part in parts if part]
    alike = len({part[1] for part in parts if part}) == 1 and len(numbers) == len(names)
    return alike and all(b - a == 1 for a, b in itertools.pairwise(numbers))


def place(container: str, name: str) -> str:
    """The path of an entry."""
    return f"{container}.{name}" if container else name
