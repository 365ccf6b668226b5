"""What a report says at the prompt: a few lines that a person wants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from prunekit.quantities.limits import PLAIN

_NOISE = 0.05  # of a latency: what two timings of one model differ by anyway
_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


class Reported(Protocol):
    """What pruning says of itself, as far as it is shown."""

    @property
    def params(self) -> Mapping[str, int]: ...

    @property
    def macs(self) -> Mapping[str, int]: ...

    @property
    def memory(self) -> Mapping[str, int]: ...

    @property
    def verify(self) -> Mapping[str, Any]: ...

    @property
    def latency(self) -> Mapping[str, float] | None: ...

    @property
    def runner(self) -> str | None: ...

    @property
    def activations(self) -> Mapping[str, int] | None: ...

    @property
    def kv_cache(self) -> Mapping[str, int] | None: ...

    @property
    def notes(self) -> tuple[str, ...]: ...


def report_lines(report: Reported) -> list[str]:
    """Counts before and after, what the checks found, and remarks."""
    rows = [("params", report.params, ""), ("macs", report.macs, ""), ("memory", report.memory, "B")]
    lines = [f"{name:8}{_before_after(pair, unit)}" for name, pair, unit in rows]
    more = (("activations", report.activations), ("kv_cache", report.kv_cache))
    lines += [f"{name} {_before_after(pair, 'B')}" for name, pair in more if pair is not None]
    if report.latency is not None:
        change = latency_change(report.latency["before"], report.latency["after"])
        lines.append(f"latency {change}" if report.runner == PLAIN else f"latency {change}, {report.runner}")
    checks = (f"{name} {report.verify[name]}" for name in ("shapes", "depth", "symmetry") if name in report.verify)
    lines.append(f"checks  {', '.join(checks)}")
    shown = report.notes[:3]
    further = [f"and {len(report.notes) - 3} more notes"] if len(report.notes) > 3 else []
    return [*lines, *shown, *further]


def latency_change(before: float, after: float) -> str:
    """Milliseconds before and after; a difference that is less than the noise of a timing is called equal."""
    is_equal = abs(after - before) <= _NOISE * before
    return f"{1e3 * before:.3g} ms -> {1e3 * after:.3g} ms ({'equal' if is_equal else f'{after / before - 1:+.0%}'})"


def _before_after(pair: Mapping[str, int], unit: str) -> str:
    before, after = pair["before"], pair["after"]
    return f"{_rounded(before)}{unit} -> {_rounded(after)}{unit} ({after / before - 1:+.0%})" if before else "none"


def _rounded(count: int) -> str:
    return next((f"{count / size:.4g}{mark}" for size, mark in _UNITS if count >= size), str(count))
