"""Every command by name, loaded when it is asked for: the help of one need not wait for the imports of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from prunekit.cli.console.ending import unseen
from prunekit.cli.console.voice import note_line, with_voice


@dataclass(frozen=True)
class Command:
    """Where a command is, and its first sentence; ``holds`` are the commands below it."""

    module: str
    function: str
    sentence: str
    holds: Mapping[str, Command] | None = None

    def load(self) -> Callable[..., Any]:
        """The function behind it, imported now."""
        found: Callable[..., Any] = getattr(import_module(f"prunekit.cli.commands.{self.module}"), self.function)
        return found


COMMANDS: Mapping[str, Command] = {
    "prune": Command("pruning", "prune", "Slim a model and keep it: weights, plan, report and pictures in one folder."),
    "run": Command("run_files", "run_file", "Do a whole run that a YAML file describes."),
    "plan": Command("planning", "write_plan", "Decide what goes, and write it to a file; the model stays as it is."),
    "apply": Command("applying", "apply_plan", "Cut a model as a plan says, and keep it in a folder."),
    "report": Command("paging", "write_report", "Write report.html for folders, and one page that compares several."),
    "explain": Command("explaining", "explain", "Say what was kept of every group of a pruned folder, and why."),
    "diff": Command("differing", "diff", "Set two pruned folders side by side: settings, figures, widths."),
    "trace": Command("tracing", "show_structure", "Show what a model consists of: groups, ties, what cannot shrink."),
    "compare": Command("comparing", "compare", "Compare criteria at one budget, with random as the control."),
    "eval": Command("evaluating", "evaluate", "Score models on annotated images or text, beside trivial answers."),
    "export": Command(
        "exporting", "export", "Write a pruned model in another format, read it back, and compare its outputs."
    ),
    "list": Command("listing", "list_names", "List what there is to choose from: scorers, recipes, settings, models."),
    "recipes": Command(
        "",
        "",
        "Look into recipes.",
        {"show": Command("recipes", "show_recipe", "Show a recipe's stages and settings.")},
    ),
    "plugins": Command(
        "",
        "",
        "Begin a plug-in.",
        {"new": Command("plugin_skeleton", "new_plugin", "Write the skeleton of a plug-in, with a test that passes.")},
    ),
    "doctor": Command("findings", "doctor", "Say what is installed, what is missing, and what a model would do."),
}


class LazyGroup(TyperGroup):
    """Lists commands by their sentences and builds the one that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if ctx.parent is None:
            note_line(("prunekit", *args))
        name, _, rest = super().resolve_command(ctx, args)
        known = COMMANDS if ctx.parent is None else COMMANDS[str(ctx.info_name)].holds or {}
        return name, None if name is None else ready_command(str(name), known[str(name)]), rest


def ready_command(name: str, command: Command) -> Any:
    """The command as typer runs it."""
    app = typer.Typer(cls=LazyGroup, no_args_is_help=True, add_completion=False, help=command.sentence)
    if command.holds is None:
        app.command(name)(unseen(with_voice(command.load())))
    else:
        stubs(app, command.holds)
        app.callback()(_nothing)
    return typer.main.get_command(app)


def stubs(app: typer.Typer, commands: Mapping[str, Command]) -> None:
    """Gives ``app`` a stand-in for each command, which knows its name and its sentence."""
    for name, command in commands.items():
        app.command(name, help=command.sentence)(_nothing)


def _nothing() -> None:
    """Stands for a command until it is called."""
