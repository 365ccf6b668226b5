"""The ``prunekit`` command. Torch is imported by the commands, not here, so that ``--help`` is quick."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from prunekit.cli.comparing import compare
from prunekit.cli.evaluating import evaluate
from prunekit.cli.exporting import export
from prunekit.cli.listing import list_names
from prunekit.cli.pruning import prune
from prunekit.errors import PrunekitError

BAD_INPUT, INTERRUPTED = 2, 130

app = typer.Typer(
    name="prunekit",
    help="Structured pruning for PyTorch: slim a model, keep what it can do.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("prune")(prune)
app.command("compare")(compare)
app.command("eval")(evaluate)
app.command("export")(export)
app.command("list")(list_names)


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
    """The exit code: 0 done, 2 for input that cannot be used, after one message on stderr, 130 when interrupted."""
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="prunekit", standalone_mode=False)
    except PrunekitError as error:
        return _complain(str(error))
    except typer.Exit as done:
        return done.exit_code
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("prunekit: interrupted; nothing was written\n")
        return INTERRUPTED
    except typer.TyperException as error:
        message = getattr(error, "format_message", None)
        text = message() if callable(message) else str(error)
        # without any argument typer has already printed the help, and has nothing to add
        return _complain(text) if text else BAD_INPUT
    return code if isinstance(code, int) else 0


def _complain(text: str) -> int:
    sys.stderr.write(f"prunekit: {text}\n")
    return BAD_INPUT


def main() -> None:
    """The command, to the exit of the process."""
    code = run()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from prunekit.runs.ranks import leave

        leave()
    sys.exit(code)
