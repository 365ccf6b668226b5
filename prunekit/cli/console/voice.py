"""How much a command says, and where: one console for all of it."""

from __future__ import annotations

import functools
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 120  # columns where no terminal says otherwise: names of groups are long, and files have room


@dataclass(frozen=True)
class Voice:
    """``quiet``: results as JSON, and errors, only. ``verbose``: 1 tells of every decision, 2 of what led to it."""

    quiet: bool = False
    verbose: int = 0


_PLAIN = Voice()
_LINE: ContextVar[tuple[str, ...]] = ContextVar("line", default=())
_VOICE: ContextVar[Voice] = ContextVar("voice", default=_PLAIN)


def loudness() -> Voice:
    """How much the command that runs was asked to say."""
    return _VOICE.get()


def speaker(*, silent: bool = False, stderr: bool = False) -> Console:
    """Where people are told things. Nothing is shown when ``silent`` or asked to be quiet; its ``file`` still writes.

    Colours and widths are those of the terminal; NO_COLOR, FORCE_COLOR, COLUMNS and TERM=dumb are followed. No number
    is coloured by guess, and a bracket is a bracket: names of folders, models and groups may hold any.
    """
    from prunekit.cli.console.pulse import Speaking

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    is_quiet = silent or (loudness().quiet and not stderr)
    return Speaking(quiet=is_quiet, stderr=stderr, width=width, highlight=False, markup=False)


def command_line() -> str:
    """The command as it was given, for a shell; "" where there was none."""
    return shlex.join(_LINE.get())


def note_line(words: Sequence[str]) -> None:
    """Keeps what ``command_line`` gives."""
    _LINE.set(tuple(words))


@contextmanager
def busy(shown: Console | None, what: str) -> Iterator[None]:
    """Says ``what`` is being done, and for how long, while it is: for waits that nothing can be counted in."""
    from prunekit.cli.console.pulse import PULSE

    if shown is None or not shown.is_terminal or shown.quiet:
        with PULSE.about(what):
            yield
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with PULSE.about(what, drawn=True), Progress(*columns, console=shown, transient=True) as bar:
        bar.add_task(what, total=None)
        yield


def _alive(asked: Voice) -> AbstractContextManager[None]:
    """Fills silences, on the standard error; of several ranks one does."""
    from prunekit.cli.console.pulse import PULSE

    silent = asked.quiet or int(os.environ.get("RANK", "0")) > 0
    return nullcontext() if silent else PULSE.beating()


def with_voice(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives ``command`` the flags -q and -v."""
    hints = get_type_hints(command, include_extras=True)
    flags = {
        "quiet": (
            Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors, and JSON if asked.")],
            False,
        ),
        "verbose": (
            Annotated[int, typer.Option("--verbose", "-v", count=True, help="Say more; twice, still more.")],
            0,
        ),
    }

    @functools.wraps(command)
    def run(**given: Any) -> Any:
        asked = Voice(given.pop("quiet"), given.pop("verbose"))
        token = _VOICE.set(asked)
        try:
            with _alive(asked):
                return command(**given)
        finally:
            _VOICE.reset(token)

    own = [
        p.replace(annotation=hints.get(p.name, p.annotation)) for p in inspect.signature(command).parameters.values()
    ]
    more = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)
        for name, (annotation, default) in flags.items()
    ]
    run.__signature__ = inspect.Signature([*own, *more])  # type: ignore[attr-defined]
    run.__annotations__ = hints | {name: annotation for name, (annotation, _) in flags.items()}
    del run.__wrapped__  # or typer would look past this function
    return run
