"""Targets in words: ``macs<=23G, params<=9.1M, latency[compiled]<=15ms, memory<=60%`` become limits."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from prunekit.errors import InputError
from prunekit.files.byte_counts import BYTES

QUANTITIES = ("params", "macs", "layer_macs", "memory", "activations", "kv_cache", "latency")
PLAIN = "eager"  # what runs a model whose latency names nothing
RUNNER_NAMES = (PLAIN, "compiled", "onnx")
_UNITS: Mapping[str, Mapping[str, float]] = {
    "params": {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9},
    "macs": {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12},
    "layer_macs": {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12},
    "memory": BYTES,
    "activations": BYTES,
    "kv_cache": BYTES,
    "latency": {"s": 1, "ms": 1e-3, "us": 1e-6},
}
_LIMIT = re.compile(r"\s*(\w+)\s*(?:\[\s*([^\]]*?)\s*\])?\s*<=\s*([0-9.]+(?:e[+-]?\d+)?)\s*([a-z%]*)\s*", re.IGNORECASE)
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

    @property
    def runner(self) -> str | None:
        """By what the model is run whose latency this limits, by its name; None for what is counted."""
        return runner_of(self.quantity)

    def __str__(self) -> str:
        return f"{self.quantity}<={self.most:.2%}" if self.relative else f"{self.quantity}<={self.most:.6g}"


def runner_of(quantity: str) -> str | None:
    """The runner in the brackets of a ``quantity`` of time, ``eager`` where there are none; None for a count."""
    name, _, rest = quantity.partition("[")
    return None if name != "latency" else rest.rstrip("]") or PLAIN


def parse_target(target: Target) -> tuple[Limit, ...]:
    """The limits of ``target``: text, or quantity -> number (counts, bytes, seconds) or text with a unit.

    Raises InputError for a quantity, number or unit that does not exist; the message shows how to write one.
    """
    if isinstance(target, str):
        parts = [part for part in target.split(",") if part.strip()]
    else:
        parts = [f"{name}<={_as_text(str(name), value)}" for name, value in target.items()]
    limits = [_limit(part) for part in parts]
    if not limits:
        raise InputError("the target is empty", where="target", hint=_HINT)
    names = [limit.quantity for limit in limits]
    if len(set(names)) < len(names):
        raise InputError("a quantity is limited twice", where="target", hint=_HINT)
    if len(timed := [limit.quantity for limit in limits if limit.runner is not None]) > 1:
        raise InputError(
            f"{' and '.join(timed)} are limited at once, and a plan is held against one clock",
            where="target",
            hint="limit the latency that matters, and look at the other one afterwards",
        )
    return tuple(limits)


def _as_text(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{value!r} is not an amount of {name}", where="target", hint=_HINT)
    return f"{value!r}s" if runner_of(name) is not None else f"{value!r}"


def _limit(text: str) -> Limit:
    match = _LIMIT.fullmatch(text)
    if match is None:
        raise InputError(f"{text.strip()!r} is not a target", where="target", hint=_HINT)
    quantity, runner, number, unit = match[1].lower(), match[2], match[3], match[4]
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
    units, named = _UNITS[quantity], _with_runner(quantity, runner)
    if unit == "%":
        return Limit(named, amount / 100, relative=True)
    if unit.lower() not in units:
        known = ", ".join(u or "(none)" for u in units)
        raise InputError(f"{unit!r} is not a unit of {quantity}", where="target", hint=f"one of {known}, or %")
    return Limit(named, amount * units[unit.lower()])


def _with_runner(quantity: str, runner: str | None) -> str:
    """The one name of a quantity that is written with ``runner`` in brackets: ``latency`` is ``latency[eager]``."""
    if runner is None:
        return quantity
    if quantity != "latency":
        raise InputError(f"{quantity} is the same whatever runs the model", where="target", hint=f"write {quantity}<=")
    if (asked := runner.lower()) not in RUNNER_NAMES:
        known = ", ".join(f"latency[{name}]" for name in RUNNER_NAMES)
        raise InputError(f"{runner!r} is nothing that runs a model", where="target", hint=f"one of {known}")
    return quantity if asked == PLAIN else f"{quantity}[{asked}]"
