"""A run file, read and checked against what prunekit and its plug-ins know, before any model is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from prunekit.errors import InputError, PrunekitError, RegistryError
from prunekit.options import Options
from prunekit.options.together import settings_said
from prunekit.recipes import ONESHOT, Recipe, override
from prunekit.registry.criteria import scorer
from prunekit.runfiles.asked_run import RunFile
from prunekit.runfiles.keys import option_keys, run_keys, unknown_key
from prunekit.runfiles.recipe_files import recipe_named
from prunekit.runfiles.spots import Spot, Spots
from prunekit.runfiles.yaml_tree import Entries, tree_in


def read_run(path: Path) -> RunFile:
    """What ``path`` asks for.

    Raises InputError that names the file, the line and the key, and the nearest right word where one is misspelt.
    """
    tree, known = tree_in(path), run_keys()
    found: dict[str, Any] = {}
    for name, node in tree.values.items():
        if name not in known:
            unknown_key(name, known, tree.spots[name])
        found[name] = known[name].read(node)
    recipe = _recipe_asked(found.get("recipe"), tree.spots)
    if "scorer" in found:
        _tried(lambda: scorer(found["scorer"]), tree.spots["scorer"])
    options = {name: found.pop(name) for name in option_keys() if name in found}
    _check_options(options, tree.spots)
    asked = RunFile(**found, options=options, spots=Spots(tree.spots))
    _check_settings(asked, recipe, tree)
    return asked


def _check_options(options: Mapping[str, Any], spots: Mapping[str, Spot]) -> None:
    """Each by itself, and then all of them, which may contradict each other."""
    for name, value in options.items():
        _tried(lambda given={name: value}: Options.of(**given), spots[name])  # type: ignore[misc]
    if options:
        _tried(lambda: Options.of(**options), max((spots[name] for name in options), key=lambda spot: spot.line))


def _recipe_asked(name: str | None, spots: Mapping[str, Spot]) -> Recipe:
    """The recipe of that name or file; an error in the file says where in it."""
    try:
        return ONESHOT if name is None else recipe_named(name)
    except RegistryError as error:
        _told_at(spots["recipe"], error)


def _check_settings(asked: RunFile, recipe: Recipe, tree: Entries) -> None:
    inner = tree.values.get("settings")
    spots = inner.spots if isinstance(inner, Entries) else {}
    for name, value in asked.settings.items():
        _tried(lambda given={name: value}: override(recipe, given), spots[name])  # type: ignore[misc]
    for name in asked.options.keys() & settings_said().keys():
        _tried(lambda given={name: asked.options[name]}: override(recipe, given), tree.spots[name])  # type: ignore[misc]
        if name in asked.settings:
            raise InputError(
                f"{name} is said twice, here and in line {tree.spots[name].line}",
                where=str(spots[name]),
                hint="leave one of them out",
            )


def _tried(check: Callable[[], object], spot: Spot) -> None:
    try:
        check()
    except PrunekitError as error:
        _told_at(spot, error)


def _told_at(spot: Spot, error: PrunekitError) -> NoReturn:
    raise InputError(error.what, where=str(spot), hint=error.hint) from error
