"""``prunekit list``: what there is to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from prunekit.cli.console.voice import busy, speaker

KINDS = ("scorers", "recipes", "settings", "roles", "models", "formats", "plugins")
COLUMNS = {
    "scorers": ("name", "what it is", "needs", "costs"),
    "settings": ("name", "default", "may be", "what it is"),
}


def list_names(
    kind: Annotated[str, typer.Argument(help="|".join(KINDS), autocompletion=lambda: list(KINDS))],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: name -> description.")] = False,
) -> None:
    """List what there is to choose from: scorers, recipes, settings, roles, models, formats or plug-ins."""
    from prunekit.cli.console.glossary import MEANING, show_glossary
    from prunekit.cli.console.notices import heard
    from prunekit.errors import RegistryError

    console = speaker()
    if kind not in KINDS:
        raise RegistryError.unknown("kind of list", kind, KINDS)
    shown = None if as_json else console
    with heard(shown), busy(shown, f"looking for {kind}"):
        rows = _rows(kind)
    if as_json:
        import json

        console.file.write(json.dumps(rows, indent=1) + "\n")
        return
    cells = {name: [*map(str, row.values())] if isinstance(row, dict) else [row] for name, row in rows.items()}
    show_glossary(console, COLUMNS.get(kind, ("name", MEANING)), cells, kind)


def _scorer_row(factory: Any) -> dict[str, Any]:
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


def setting_row(name: str, default: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """Default, accepted words or least number, and meaning of a recipe setting."""
    from prunekit.recipes.records import choices_of

    about = known.get(name)
    choices = ", ".join(str(choice) or "(empty)" for choice in choices_of(about)) if about else ""
    least = f"at least {about.least:g}" if about and about.least else ""
    return {
        "default": default,
        "accepts": choices or least or type(default).__name__,
        "doc": about.doc if about else "",
    }


def _rows(kind: str) -> Mapping[str, str | dict[str, Any]]:
    from prunekit.plugins.discovery import discover
    from prunekit.registry import known_recipes
    from prunekit.registry.criteria import known_scorers
    from prunekit.registry.lookup import names
    from prunekit.roles import DEPTH, ROLES

    if kind == "plugins":
        return {p.name: f"{len(p.models)} models, {len(p.recipes)} recipes" for p in discover()}
    if kind == "roles":
        return {str(role): role.meaning for role in (*ROLES, *DEPTH, *(role for p in discover() for role in p.roles))}
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
    if kind == "settings":
        return _settings(list(known_recipes().values()))
    return {name: _scorer_row(factory) for name, factory in known_scorers().items()}


def _settings(recipes: list[Any]) -> dict[str, dict[str, Any]]:
    """Every setting of any recipe; those of one recipe alone say whose they are."""
    from prunekit.recipes import COMMON
    from prunekit.recipes.records import said_of_settings

    known = said_of_settings(*(recipe.own for recipe in recipes if recipe.own is not None))
    rows = {name: setting_row(name, default, known) for name, default in COMMON.items()}
    for recipe in recipes:
        for name, default in recipe.settings.items():
            if name not in rows:
                rows[name] = setting_row(name, default, known)
                rows[name]["doc"] += f" [{', '.join(r.name for r in recipes if name in r.settings)}]"
    return rows
