"""A plan at the prompt: its widths, as many as a person reads."""

from __future__ import annotations

from typing import Protocol

_SHOWN = 8


class Planned(Protocol):
    """What has widths."""

    @property
    def widths(self) -> tuple[Wide, ...]: ...


class Wide(Protocol):
    """One width before and after."""

    @property
    def group(self) -> str: ...

    @property
    def role(self) -> str: ...

    @property
    def before(self) -> int: ...

    @property
    def after(self) -> int: ...


def width_lines(plan: Planned) -> list[str]:
    """The first widths that change, and how many more do."""
    changed = [width for width in plan.widths if width.after < width.before]
    lines = [f"  {width.group}  {width.role}  {width.before} -> {width.after}" for width in changed[:_SHOWN]]
    more = len(changed) - _SHOWN
    return [*lines, f"  and {more} more"] if more > 0 else lines
