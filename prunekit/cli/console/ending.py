"""How the command ends: exit codes, what is said, and the report that an internal error leaves."""

from __future__ import annotations

import functools
import os
import platform
import re
import shlex
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from prunekit.errors import ConfigError, NothingToPruneError, PrunekitError, TraceError, VerificationError
from prunekit.files.disk import FAULTS
from prunekit.runs.stopping import Stopped

DONE, INTERNAL, BAD_INPUT, REFUSED, INTERRUPTED, STOPPED = 0, 1, 2, 3, 130, 143
REFUSALS = (TraceError, NothingToPruneError, VerificationError, ConfigError)  # of the model, and not of what was asked


class Unseen(BaseException):
    """Carries past typer what it would end the command for without a word."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        super().__init__()


def unseen(command: Callable[..., None]) -> Callable[..., None]:
    """``command``, whose interrupts ``run`` hears of."""

    @functools.wraps(command)
    def call(**given: Any) -> None:
        try:
            command(**given)
        except (KeyboardInterrupt, EOFError) as error:
            raise Unseen(error) from error

    return call


def told(error: BaseException, arguments: Sequence[str]) -> int:
    """The exit code for ``error``, after one message on stderr."""
    notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
    if isinstance(error, PrunekitError):
        return complain(f"{error}{notes}", REFUSED if isinstance(error, REFUSALS) else BAD_INPUT)
    if isinstance(error, Stopped):
        return complain(f"stopped, as it was asked to{notes}", STOPPED)
    if isinstance(error, KeyboardInterrupt):
        return complain(f"interrupted{notes or '; nothing was written'}", INTERRUPTED)
    if isinstance(error, OSError) and error.errno in FAULTS and error.filename:
        return complain(f"cannot use {error.filename}: {error.strerror}{notes}")
    first = next(iter(str(error).splitlines()), "")
    where = error_report(error, arguments)
    what = f"internal error: {type(error).__name__}: {first}{notes}"
    return complain(f"{what}\n  next: please report it, and attach {where}: versions and places in code", INTERNAL)


def complain(text: str, code: int = BAD_INPUT) -> int:
    """Says it and returns ``code``."""
    sys.stderr.write(f"prunekit: {text}\n")
    return code


def error_report(error: BaseException, arguments: Sequence[str]) -> Path:
    """A file to attach to a report: versions, the command, the traceback; no weights, no data, no values of variables.

    It lies in the current folder, or where temporary files do if nothing can be written there.
    """
    lines = [
        f"command: {shlex.join(['prunekit', *arguments])}",
        f"python {platform.python_version()}, {platform.system()} {platform.machine()}",
        *_version_lines(),
        "",
        *traceback.format_exception(error),
    ]
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        try:
            handle, name = tempfile.mkstemp(prefix="prunekit-error-", suffix=".txt", dir=folder)
        except OSError:
            continue
        with os.fdopen(handle, "w") as file:
            file.write("\n".join(lines))
        return Path(name)
    sys.stderr.write("\n".join(lines))
    return Path("what is printed above")


def _version_lines() -> list[str]:
    """Of prunekit and of everything that it or one of its extras asks for, as far as it is installed."""
    asked = [str(re.match(r"[\w.-]+", each)[0]) for each in requires("prunekit") or []]  # type: ignore[index]
    found = []
    for name in dict.fromkeys(["prunekit", *asked]):
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return found


@contextmanager
def asked_to_end() -> Iterator[Callable[[], bool]]:
    """Within the block SIGTERM ends nothing: what is yielded says whether it came. A second one ends the process."""
    if threading.current_thread() is not threading.main_thread():  # only there signals can be handled
        yield lambda: False
        return
    came: list[int] = []

    def note(number: int, _: object) -> None:
        came.append(number)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def what_is_kept(folder: Path) -> Iterator[None]:
    """An error that leaves the block says that ``folder`` holds what the run did, where it does."""
    from prunekit.runs.keeping import discard, holds_work, is_begun

    try:
        yield
    except BaseException as error:
        if isinstance(error, REFUSALS) and not holds_work(folder):
            discard(folder)  # it would be refused again
        elif is_begun(folder) and getattr(error, "where", "") != str(folder):
            error.add_note(
                f"  kept: {folder} holds what was done: the same command with --resume goes on; without it, start again"
            )
        raise
