"""Lists and sequences of modules: their entries, and the names that entries have when some are gone."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from torch import nn

_NUMBERED = re.compile(r"(.*?)(\d+)$")


def containers_of(modules: Iterable[tuple[str, nn.Module]]) -> dict[str, tuple[str, ...]]:
    """The names of the entries of every ``ModuleList`` and ``Sequential`` by its path; "" is the model itself."""
    return {
        path: tuple(module._modules)
        for path, module in modules
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module._modules) > 1
    }


def names_left(names: Sequence[str], kept: Sequence[int]) -> list[str]:
    """The names of the entries ``kept`` in a container that was built with these alone.

    Numbered entries (``0``, ``1``; ``block0``, ``block1``) are numbered anew; names of any other kind stay.
    """
    parts = [_NUMBERED.fullmatch(name) for name in names]
    numbers = [int(part[2]) for part in parts if part]
    alike = len({part[1] for part in parts if part}) == 1 and len(numbers) == len(names)
    if not alike or any(b - a != 1 for a, b in itertools.pairwise(numbers)):
        return [names[index] for index in kept]
    return list(names[: len(kept)])


def place(container: str, name: str) -> str:
    """The path of an entry."""
    return f"{container}.{name}" if container else name
