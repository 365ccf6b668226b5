"""Iterative pruning: how much of everything that goes is gone after each step."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal, get_args

from prunekit.errors import InputError

MOST_STEPS = 10_000
Named = Literal["cubic", "linear"]
Schedule = Named | Callable[[int, int], float]


def portions(steps: int, schedule: str | Callable[[int, int], float]) -> tuple[float, ...]:
    """Of ``steps`` steps, the part that is gone after each, ascending to 1.

    ``linear`` is k / n; ``cubic`` is 1 - (1 - k / n)^3, most of it early (Zhu and Gupta 2017, Eq. 1). Raises
    InputError for fewer than one step or another schedule. A function (k, n) gives the part after step k of n; it must
    rise, and the last step takes what is left.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
        raise InputError(
            f"{steps!r} is not a number of steps", where="steps", hint=f"pass a whole number from 1 to {MOST_STEPS}"
        )
    if callable(schedule):
        return _called(steps, schedule)
    if schedule not in get_args(Named):
        raise InputError(
            f"{schedule!r} is not a schedule",
            where="schedule",
            hint=f"one of {', '.join(get_args(Named))}, or a function (k, n) -> the part that is gone",
        )
    power = 3 if schedule == "cubic" else 1
    return (*(1 - (1 - k / steps) ** power for k in range(1, steps)), 1.0)


def _called(steps: int, schedule: Callable[[int, int], float]) -> tuple[float, ...]:
    """What a function of one's own says, with everything gone at the end."""
    parts = [schedule(k, steps) for k in range(1, steps)]
    try:
        found = [*map(float, parts), 1.0]
    except (TypeError, ValueError) as error:
        shown = repr(parts[0])[:80]
        raise InputError(f"the schedule gives {shown}", where="schedule", hint="it must return a number") from error
    if not all(0 < a < b <= 1 for a, b in itertools.pairwise(found)):
        raise InputError(
            f"the schedule gives {', '.join(f'{part:.3g}' for part in found[:-1])} before the last step",
            where="schedule",
            hint="it must rise from above 0 to below 1",
        )
    return tuple(found)
