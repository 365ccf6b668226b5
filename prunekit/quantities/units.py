"""Counts and bytes in the unit that people read them in, so that the smallest network does not come out as 0.000 M."""

from __future__ import annotations

from dataclasses import dataclass

# from how many on, how many one of it is, its mark: 0.3 G of multiply-adds is what papers write, not 300 M
_COUNTS = ((1e8, 1e9, "G"), (1e5, 1e6, "M"), (1e3, 1e3, "k"), (0, 1, ""))
_BYTES = ((1e8, 2**30, "GiB"), (1e5, 2**20, "MiB"), (1e3, 2**10, "KiB"), (0, 1, "B"))


@dataclass(frozen=True)
class Unit:
    """``size`` of what is counted, what stands behind the number, and how many digits after the point say enough."""

    size: float
    mark: str
    digits: int = 3

    def said(self, value: float) -> str:
        return f"{value / self.size:,.{self.digits}f} {self.mark}".rstrip()


def unit_for(largest: float, *, in_bytes: bool = False) -> Unit:
    """The unit for a row of figures whose largest is ``largest``: one for all of them, so that they compare."""
    table = _BYTES if in_bytes else _COUNTS
    return next(Unit(size, mark, 0 if size == 1 else 3) for least, size, mark in table if largest >= least)


def milliseconds(largest: float) -> Unit:
    """Milliseconds, with three digits that count."""
    return Unit(1, "ms", 1 if largest >= 10 else 2 if largest >= 1 else 3)
