"""The types that options have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

Ratio = float | Mapping[str, float]
Align = int | Mapping[str, int] | Literal["auto"] | None
Rounding = Literal["down", "nearest"]
Ranking = Literal["local", "global", "role", "isomorphic"]
Verify = Literal["auto", "full", "shapes"]
OnStep = Callable[[Any, int, int], object]


def as_json(value: Any) -> Any:
    """A share or a target as JSON has it."""
    return dict(value) if isinstance(value, Mapping) else value
