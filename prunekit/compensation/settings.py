"""How layers are refitted, and by which name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from prunekit.compensation.known import Compensations
from prunekit.errors import InputError, with_plain_fields

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, math.inf)


@dataclass(frozen=True)
class Compensation:
    """How layers are refitted.

    Attributes:
        strength: lambda, as a share of the mean square of a feature times the number of rows; > 0. If None, each
            layer takes the one of ``STRENGTHS`` that does best on a quarter of its rows, which is left out of that
            fit; with infinity among them only the intercept changes.
        samples: calibration inputs that are used, at most.
        rows: places of a layer's output that are fitted, at most, over all samples; drawn at random where there are
            more. If None, 16 for each feature and 4096 at least; 4096 where ``in_order``.
        seed: of that draw.
        in_order: whether each layer is fitted to what the cut and refitted ones before it give, in one batch that
            holds all samples; otherwise to what they gave in the original, in one sweep, a sample at a time.
        memory: bytes that sums of one sweep may take; layers that would take more are fitted in further sweeps.
    """

    strength: float | None = None
    samples: int = 128
    rows: int | None = None
    seed: int = 0
    in_order: bool = False
    memory: int = 4 << 30

    def __post_init__(self) -> None:
        with_plain_fields(self)
        strength = 1.0 if self.strength is None else self.strength
        least = min(self.samples, 1 if self.rows is None else self.rows, self.memory)
        if not 0 < strength < math.inf or least < 1:
            raise InputError(
                f"{self} cannot be solved",
                hint="choose strength > 0, samples, rows and memory >= 1",
                where="compensate",
            )


def as_compensation(value: str | Compensation | None) -> Compensation | None:
    """``"ridge"`` or ``"ridge-in-order"`` with their defaults, or what was given. Raises InputError on another name."""
    if value is None or isinstance(value, Compensation):
        return value
    if value not in get_args(Compensations):
        raise InputError(
            f"{value!r} is not a compensation",
            where="compensate",
            hint=f"choose {' or '.join(get_args(Compensations))}",
        )
    return Compensation(in_order=value == "ridge-in-order")


def name_of_compensation(how: Compensation | None) -> str | None:
    """The name of a way to refit; None for none."""
    return None if how is None else "ridge-in-order" if how.in_order else "ridge"
