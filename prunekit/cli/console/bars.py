"""How a run looks while it goes: a bar a stage on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from prunekit.cli.console.pulse import PULSE

if TYPE_CHECKING:
    from prunekit.recipes import Stage
    from prunekit.runs import Event

EVERY = 10.0  # seconds between two lines about a stage where no bar can be drawn
READY = "getting ready: samples, structure"


class _Rate(ProgressColumn):
    """Steps, or samples, a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s", style="dim")


class Shown(Protocol):
    """What is shown of a run while it goes."""

    def __enter__(self) -> Shown: ...

    def __exit__(self, *error: object) -> None: ...

    def __call__(self, event: Event) -> None: ...


def bars_for(console: Console | None, stages: Sequence[Stage]) -> Shown:
    """What suits ``console``; without one, nothing."""
    if console is None or console.quiet:
        return _Silent(stages)
    return _Bars(console, stages) if console.is_terminal else _Lines(console, stages)


class _Silent:
    """Nothing but what the pulse makes of it."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = stages

    def __enter__(self) -> Shown:
        PULSE.step(READY)
        return self

    def __exit__(self, *error: object) -> None:
        return

    def __call__(self, event: Event) -> None:
        PULSE.step(_step_of(event, self._stages))


class _Bars:
    """A bar a stage, with what is left of it. Between two stages the next one's spins: nothing there can be counted."""

    def __init__(self, console: Console, stages: Sequence[Stage]) -> None:
        self._stages = stages
        self._stack = ExitStack()
        self._tasks: dict[int, TaskID] = {}
        wide = console.width >= 70
        self._progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}", markup=False),
            *([BarColumn(bar_width=16)] if wide else []),
            MofNCompleteColumn(),
            *([_Rate()] if wide else []),
            TimeRemainingColumn(elapsed_when_finished=True),
            *([TextColumn("{task.fields[figures]}", style="dim", markup=False)] if wide else []),
            console=console,
        )

    def __enter__(self) -> Shown:
        self._stack.enter_context(PULSE.about(READY, drawn=True))
        self._stack.enter_context(self._progress)
        self._waiting = self._progress.add_task(READY, total=None, figures="")
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.remove_task(self._waiting)
        self._stack.close()

    def __call__(self, event: Event) -> None:
        if event.stage not in self._tasks:
            task = self._progress.add_task(_title(event, self._stages), total=event.total, figures="")
            self._tasks[event.stage] = task
        self._progress.update(
            self._tasks[event.stage], completed=event.done, total=event.total, figures=_figures_of(event)
        )
        following = self._stages[event.stage + 1 : event.stage + 2]
        waits = event.done >= event.total and bool(following)
        words = f"then {following[0].title}" if following else ""
        self._progress.update(self._waiting, visible=waits, description=words)


class _Lines(_Silent):
    """A line when a stage begins, every ten seconds, and when it ends: for files, pipes and logs."""

    def __init__(self, console: Console, stages: Sequence[Stage], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stages)
        self._console, self._clock = console, clock
        self._begun: dict[int, float] = {}
        self._said = 0.0

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        now, first = self._clock(), event.stage not in self._begun
        since = self._begun.setdefault(event.stage, now)
        if first or event.done >= event.total or now - self._said >= EVERY:
            self._said = now
            left = (now - since) * (event.total - event.done) / event.done if event.done else 0.0
            more = f"  {left:.0f} s left" if left else ""
            text = f"{_title(event, self._stages)}  {event.done}/{event.total} {event.unit}  {_figures_of(event)}{more}"
            self._console.print(text.rstrip(), soft_wrap=True)


def _title(event: Event, stages: Sequence[Stage]) -> str:
    return f"{event.stage + 1}/{len(stages)} {event.title}"


def _step_of(event: Event, stages: Sequence[Stage]) -> str:
    """What is under way once ``event`` is told."""
    following = stages[event.stage + 1 : event.stage + 2]
    if event.done >= event.total and following:
        return f"{event.stage + 2}/{len(stages)} {following[0].title}"
    return f"{_title(event, stages)}, {event.done} of {event.total} {event.unit}".rstrip()


def _figures_of(event: Event) -> str:
    told = (
        (name.removesuffix("_gib"), f"{value:.3g}", " GiB" * name.endswith("_gib"))
        for name, value in event.figures.items()
    )
    return "  ".join(f"{name} {value}{unit}" for name, value, unit in told)


class Tally:
    """A bar a name, over things counted one by one: drawn on terminals, else left to the pulse; gone when done."""

    def __init__(self, console: Console | None) -> None:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=16), MofNCompleteColumn())
        drawn = console is not None and console.is_terminal and not console.quiet
        self._bars = Progress(*columns, TimeRemainingColumn(), console=console, transient=True) if drawn else None
        self._tasks: dict[str, TaskID] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Tally:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def __call__(self, name: str, done: int, total: int) -> None:
        """``done`` of the ``total`` things that ``name`` has."""
        PULSE.step(f"{name}, {done} of {total}")
        if self._bars is None:
            return
        if not self._tasks:
            self._stack.enter_context(PULSE.about(name, drawn=True))
            self._stack.enter_context(self._bars)
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total)
        self._bars.update(self._tasks[name], completed=done, total=total)
