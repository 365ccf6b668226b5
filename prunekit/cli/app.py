"""The ``prunekit`` command. Commands are imported when they are called, so that ``--help`` is quick."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from prunekit.cli.command_table import COMMANDS, LazyGroup, stubs
from prunekit.cli.console.ending import BAD_INPUT, Unseen, complain, told
from prunekit.runs.stopping import Stopped

app = typer.Typer(
    name="prunekit",
    help="Structured pruning for PyTorch: slim a model, keep what it can do.",
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
stubs(app, COMMANDS)


def _version(asked: bool) -> None:
    if asked:
        from prunekit import __version__

        sys.stdout.write(f"prunekit {__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Structured pruning for PyTorch: slim a model, keep what it can do."""
    gc.enable()  # see prunekit/cli/start.py


def run(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 done; after one message on stderr 2 for what a user can put right, 3 for a refused model, 1 for
    an internal error, with a file to report, 130 when interrupted, 143 when a run was stopped and kept."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = app(args=given, prog_name="prunekit", standalone_mode=False)
    except typer.Exit as done:
        return done.exit_code
    except Unseen as unseen_by_typer:
        return told(unseen_by_typer.error, given)
    except typer.TyperException as error:
        message = getattr(error, "format_message", None)
        text = message() if callable(message) else str(error)
        # without any argument typer has already printed the help, and has nothing to add
        return complain(text) if text else BAD_INPUT
    except (Exception, Stopped) as error:
        return told(error, given)
    return code if isinstance(code, int) else 0


def main() -> None:
    """The command, to the exit of the process."""
    code = run()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from prunekit.runs.ranks import leave

        leave()
    sys.exit(code)
