"""``prunekit recipes show``: what a recipe does, stage by stage, and what can be set."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunekit.cli.console.voice import busy, speaker

if TYPE_CHECKING:
    from prunekit.recipes import Recipe


def show_recipe(
    name: Annotated[str, typer.Argument(help="See: prunekit list recipes; or a recipe file, ending in .yaml.")],
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value: show it with these; repeat.")] = None,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="Print the recipe as a file that --recipe takes, and nothing else.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the recipe as JSON, and nothing else.")] = False,
) -> None:
    """Show a recipe's stages and settings."""
    from prunekit.cli.console.notices import heard
    from prunekit.recipes import override, parse, stages_of
    from prunekit.runfiles import recipe_named, recipe_text

    console = speaker()
    shown = None if as_json or as_yaml else console
    with heard(shown), busy(shown, "looking for recipes"):
        recipe = override(recipe_named(name), parse(settings or []))
    if as_yaml:
        console.file.write(recipe_text(recipe))
        return
    told: dict[str, Any] = {
        "name": recipe.name,
        "description": recipe.description,
        "model": recipe.model,
        "stages": [_stage(stage) for stage in stages_of(recipe)],
        "settings": _settings_of(recipe),
    }
    if as_json:
        import json

        console.file.write(json.dumps(told, indent=1, default=repr) + "\n")
        return

    from rich.text import Text

    from prunekit.cli.console.glossary import MEANING, show_glossary

    console.print(Text.assemble((recipe.name, "bold"), f"  {recipe.description}"))
    if recipe.model:
        console.print(f"made for {recipe.model} where no other model is given", style="dim")
    for number, stage in enumerate(told["stages"], 1):
        console.print(Text.assemble(f"{number}. {stage['title']}  ", (stage["does"], "dim")))
    rows = {key: [*map(str, row.values())] for key, row in told["settings"].items()}
    show_glossary(console, ("setting", "value", "may be", MEANING), rows)


def _settings_of(recipe: Recipe) -> dict[str, Any]:
    from prunekit.cli.commands.listing import setting_row
    from prunekit.recipes.records import said_of_settings

    known = said_of_settings(*([] if recipe.own is None else [recipe.own]))
    return {key: setting_row(key, value, known) for key, value in recipe.settings.items()}


def _stage(stage: Any) -> dict[str, Any]:
    """The stage's kind, what it does in a line, and its fields."""
    from prunekit.recipes import Distil, Prune

    if isinstance(stage, Prune):
        roles = "; ".join(" with ".join(pool) for pool in stage.pools) or "every role"
        does = f"cut {roles}" + (f", {stage.part:.0%} of all that goes" if stage.part < 1 else "")
    elif isinstance(stage, Distil):
        does = "train towards " + ", ".join(
            f"the {term.teacher}'s {' and '.join(term.roles) or 'output'} ({term.name})" for term in stage.terms
        )
        does += f", with the penalty {stage.penalty}" if stage.penalty else ""
    else:
        does = "measure the whole model"
    return {"kind": type(stage).__name__.lower(), "does": does, **asdict(stage)}
