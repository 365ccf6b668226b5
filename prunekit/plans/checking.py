"""Whether values read from a file are what a plan is made of: a plan decides where tensors are indexed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

T = TypeVar("T")

_LARGEST = 2**53  # what JSON holds exactly


def as_read(kind: type[T], values: Any) -> T:
    """``kind(**values)``, where every value is of the type that its field is annotated with.

    Whole numbers are not negative, others finite. Raises ValueError with the field's name for anything else.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{kind.__name__} is {type(values).__name__}, not a mapping")
    given = {}
    for each in fields(kind):  # type: ignore[arg-type]  # a dataclass in every call
        if each.name in values:
            given[each.name] = _of(str(each.type), values[each.name], f"{kind.__name__}.{each.name}")
    if unknown := set(values) - set(given):
        raise ValueError(f"{kind.__name__} has no {min(map(str, unknown))!r}")
    return kind(**given)


def ascending(kept: tuple[int, ...], size: int, what: str) -> None:
    """Raises ValueError unless ``kept`` rises within ``size`` places."""
    if not all(a < b for a, b in itertools.pairwise(kept)) or (kept and kept[-1] >= size):
        raise ValueError(f"what is kept of {what} does not rise from 0 to below {size}")


def _of(kind: str, value: Any, where: str) -> Any:
    if kind == "str" and isinstance(value, str):
        return value
    if kind == "int | None" and value is None:
        return None
    if kind in ("int", "int | None") and _is_count(value):
        return value
    if kind == "float" and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return value
    if kind == "tuple[int, ...]" and isinstance(value, list) and all(map(_is_count, value)):
        return tuple(value)
    if kind == "tuple[str, ...]" and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    raise ValueError(f"{where} is {str(value)[:40]!r}, not {kind}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST
