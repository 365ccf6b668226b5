"""Shares to remove: numbers in [0, 1), as they are written."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from prunekit.errors import InputError

if TYPE_CHECKING:  # the command's help must not wait for it
    from fractions import Fraction

DEFAULT_RATIO = 0.5


def exact_ratio(value: float, where: str = "ratio") -> Fraction:
    """The share to remove, as the decimal that was written: 0.9 of 10 units leaves 1, not 0.99999. In [0, 1)."""
    from fractions import Fraction

    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not 0 <= number < 1:
        raise InputError(
            f"{value!r} is not a pruning ratio", where=where, hint="pass 0 <= ratio < 1, the share to remove"
        )
    return Fraction(repr(number))


def read_shares(text: str) -> float | dict[str, float]:
    """``0.5``, or ``mlp.hidden=0.6,attention.heads=0.25``. Raises InputError for anything else."""
    found: dict[str, float] = {}
    for part in text.split(","):
        role, equals, number = part.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise InputError(f"--ratio {part.strip()} is no share", hint="0.5, or ROLE=0.6,ROLE=0.25") from None
        if not 0 <= value < 1:  # NaN too
            raise InputError(f"--ratio {part.strip()} is out of range", hint="the share to remove, from 0 to below 1")
        if bool(equals) != ("=" in text) or role.strip() in found:
            raise InputError(f"--ratio {text} is unclear", hint="one share for all, or one for each role")
        found[role.strip()] = value
    return found if "=" in text else found[""]
