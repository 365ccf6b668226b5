"""Iterative pruning: how much of everything that goes is gone after each step."""

from __future__ import annotations

from typing import Literal, get_args

from prunekit.errors import InputError

Schedule = Literal["cubic", "linear"]


def portions(steps: int, schedule: str) -> tuple[float, ...]:
    """Of ``steps`` steps, the part that is gone after each, ascending to 1.

    ``linear`` is k / n; ``cubic`` is 1 - (1 - k / n)^3, most of it early (Zhu and Gupta 2017, Eq. 1). Raises
    InputError for fewer than one step or another schedule.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"{steps!r} is not a number of steps", where="steps", hint="pass a whole number >= 1")
    if schedule not in get_args(Schedule):
        raise InputError(
            f"{schedule!r} is not a schedule", where="schedule", hint=f"one of {', '.join(get_args(Schedule))}"
        )
    power = 3 if schedule == "cubic" else 1
    return (*(1 - (1 - k / steps) ** power for k in range(1, steps)), 1.0)
