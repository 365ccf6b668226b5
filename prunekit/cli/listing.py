"""``prunekit list``: what there is to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

KINDS = ("scorers", "recipes", "roles", "models", "formats", "plugins")


def list_names(
    kind: Annotated[str, typer.Argument(help="|".join(KINDS))],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: name -> description.")] = False,
) -> None:
    """List the scorers, recipes, roles, models, formats or plug-ins that are installed."""
    from rich.console import Console
    from rich.table import Table

    from prunekit.cli.notices import heard
    from prunekit.errors import RegistryError

    console = Console()
    if kind not in KINDS:
        raise RegistryError.unknown("kind of list", kind, KINDS)
    with heard(None if as_json else console):
        rows = _rows(kind)
    if as_json:
        import json

        console.file.write(json.dumps(rows, indent=1) + "\n")
        return
    columns = ("name", "what it is", "needs", "costs") if kind == "scorers" else ("name", "what it is")
    table = Table(*columns, title=kind, title_justify="left", box=None, header_style="bold")
    for name, row in rows.items():
        table.add_row(name, *((row["formula"], row["needs"], row["costs"]) if isinstance(row, dict) else (row,)))
    console.print(table)


def _scorer_row(factory: Any) -> dict[str, str]:
    """Formula, needs and costs of a criterion; a plug-in's may leave the latter out."""
    made = getattr(factory, "func", factory)
    if not isinstance(made, type):
        made = type(factory())  # a plug-in's function, which imports its criterion when it is called
    options = ", ".join(f"{key}={value}" for key, value in getattr(factory, "keywords", {}).items())
    text = (made.__doc__ or "").strip().split("\n")[0]
    needs = getattr(made, "needs", None)
    return {
        "formula": f"{text} ({options})" if options else text,
        "needs": getattr(needs, "data", ""),
        "costs": getattr(needs, "cost", ""),
    }


def _rows(kind: str) -> Mapping[str, str | dict[str, str]]:
    from prunekit.plugins.discovery import discover
    from prunekit.registry import known_recipes
    from prunekit.registry.criteria import known_scorers
    from prunekit.registry.lookup import names
    from prunekit.roles import ROLES

    if kind == "plugins":
        return {p.name: f"{len(p.models)} models, {len(p.recipes)} recipes" for p in discover()}
    if kind == "roles":
        return {str(role): role.meaning for role in (*ROLES, *(role for p in discover() for role in p.roles))}
    if kind == "models":
        return dict.fromkeys(names(), "from a plug-in") | {
            "timm:NAME": "any model of timm",
            "torchvision:NAME": "any model of torchvision",
            "python:pkg.mod:factory": "whatever your own function returns",
        }
    if kind == "formats":
        from prunekit.exports import known_formats

        return {name: (write.__doc__ or "").strip().split("\n")[0] for name, write in known_formats().items()}
    if kind == "recipes":
        return {name: recipe.description for name, recipe in known_recipes().items()}
    return {name: _scorer_row(factory) for name, factory in known_scorers().items()}
