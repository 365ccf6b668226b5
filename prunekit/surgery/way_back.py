"""Steps back: each puts one thing where it was, and may be done twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prunekit.errors import PlanError

Step = Callable[[], None]


def putter(store: dict[str, Any], name: str, value: Any) -> Step:
    """The step that puts ``value`` back."""

    def put() -> None:
        store[name] = value

    return put


def no_way_back() -> None:
    """The step of a result that was copied or pickled: raises PlanError."""
    raise PlanError(
        "a result that was copied or pickled has no way back",
        where="undo",
        hint="call undo() of the very result that prunekit.prune returned",
    )
