"""Steps back: each puts one thing where it was, and may be done twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Step = Callable[[], None]


def putter(store: dict[str, Any], name: str, value: Any) -> Step:
    """The step that puts ``value`` back."""

    def put() -> None:
        store[name] = value

    return put
