"""Targets in words: ``macs<=23G, params<=9.1M, latency<=15ms, memory<=60%`` become limits."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from prunekit.errors import InputError
from prunekit.files.byte_counts import BYTES

QUANTITIES = ("params", "macs", "layer_macs", "memory", "latency")
_UNITS: Mapping[str, Mapping[str, float]] = {
    "params": {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9},
    "macs": {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12},
    "layer_macs": {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12},
    "memory": BYTES,
    "latency": {"s": 1, "ms": 1e-3, "us": 1e-6},
}
_LIMIT = re.compile(r"\s*(\w+)\s*<=\s*([0-9.]+(?:e[+-]?\d+)?)\s*([a-z%]*)\s*", re.IGNORECASE)
_HINT = 'write target="macs<=2.3G, params<=50%, latency<=15ms, memory<=40MB"'

Target = str | Mapping[str, float | str]


@dataclass(frozen=True)
class Limit:
    """``quantity`` of the pruned model is at most ``most``: a count, bytes or seconds, or a share of the original's."""

    quantity: str
    most: float
    relative: bool = False

    def of(self, whole: float) -> float:
        """The limit for a model that has ``whole`` of the quantity."""
        return self.most * whole if self.relative else self.most

    def __str__(self) -> str:
        return f"{self.quantity}<={self.most:.2%}" if self.relative else f"{self.quantity}<={self.most:.6g}"


def parse_target(target: Target) -> tuple[Limit, ...]:
    """The limits of ``target``: text, or quantity -> number (counts, bytes, seconds) or text with a unit.

    Raises InputError for a quantity, number or unit that does not exist; the message shows how to write one.
    """
    if isinstance(target, str):
        parts = [part for part in target.split(",") if part.strip()]
    else:
        parts = [f"{name}<={_as_text(name, value)}" for name, value in target.items()]
    limits = [_limit(part) for part in parts]
    if not limits:
        raise InputError("the target is empty", where="target", hint=_HINT)
    names = [limit.quantity for limit in limits]
    if len(set(names)) < len(names):
        raise InputError("a quantity is limited twice", where="target", hint=_HINT)
    return tuple(limits)


def _as_text(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{value!r} is not an amount of {name}", where="target", hint=_HINT)
    return f"{value!r}s" if name == "latency" else f"{value!r}"


def _limit(text: str) -> Limit:
    match = _LIMIT.fullmatch(text)
    if match is None:
        raise InputError(f"{text.strip()!r} is not a target", where="target", hint=_HINT)
    quantity, number, unit = match[1].lower(), match[2], match[3]
    if quantity not in QUANTITIES:
        raise InputError(
            f"{quantity!r} is not a quantity that can be limited",
            where="target",
            hint=f"one of {', '.join(QUANTITIES)}",
        )
    try:
        amount = float(number)
    except ValueError:
        raise InputError(f"{number!r} is not a number", where="target", hint=_HINT) from None
    if not amount > 0:
        raise InputError(f"{text.strip()!r} leaves nothing", where="target", hint="limit it to more than 0")
    if unit == "%":
        return Limit(quantity, amount / 100, relative=True)
    units = _UNITS[quantity]
    if unit.lower() not in units:
        known = ", ".join(u or "(none)" for u in units)
        raise InputError(f"{unit!r} is not a unit of {quantity}", where="target", hint=f"one of {known}, or %")
    return Limit(quantity, amount * units[unit.lower()])
