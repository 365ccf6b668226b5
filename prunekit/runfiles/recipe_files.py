"""A recipe as a YAML file: read with line numbers, by the rules of a run file, and written out of any recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from prunekit.errors import InputError, PrunekitError, RecipeError, RegistryError
from prunekit.options.fields import Setting
from prunekit.recipes import COMMON, Distil, Evaluate, Prune, Recipe, Repeat, Stage, Term, override, stages_of
from prunekit.recipes.records import Repeating
from prunekit.registry import known_recipes
from prunekit.runfiles.keys import unknown_key
from prunekit.runfiles.recipe_keys import KINDS, MOST_STAGES, WEIGHTINGS, keys_of, one_line, read_fields, some_roles
from prunekit.runfiles.values import not_taken, some_settings
from prunekit.runfiles.yaml_tree import Entries, Node, Several, tree_in

SUFFIXES = (".yaml", ".yml")
TOP = ("name", "description", "model", "optional", "stages", "settings")
REPEAT = "repeat"


def is_recipe_file(name: str) -> bool:
    """Whether a recipe is asked for by a file rather than by its name."""
    return name.endswith(SUFFIXES)


def recipe_named(name: str) -> Recipe:
    """The recipe of that name, or in that file. Raises RegistryError for an unknown name, and as ``read_recipe``."""
    if is_recipe_file(name):
        return read_recipe(Path(name))
    if name not in (known := known_recipes()):
        raise RegistryError.unknown("recipe", name, known)
    return known[name]


def read_recipe(path: Path) -> Recipe:
    """The recipe that ``path`` describes.

    Raises InputError that names the file, the line and the key, and the nearest right word where one is misspelt.
    """
    tree = tree_in(path, "a recipe", "it needs stages at least; docs/recipes.md")
    for name in tree.values:
        if name not in TOP:
            unknown_key(name, dict.fromkeys(TOP), tree.spots[name])
    if "stages" not in tree.values:
        raise InputError("the recipe has no stages", where=str(tree.spot), hint="add stages: a list; docs/recipes.md")
    stages = _read_stages(tree.values["stages"], repeats=True)
    if not any(isinstance(stage, Prune) for stage in _without_repeats(stages)):
        raise InputError("no stage prunes", where=str(tree.spots["stages"]), hint="add  - prune: TITLE")
    words = ("name", "description", "model")
    said = {name: one_line(tree.values[name]) for name in words if name in tree.values}
    recipe = Recipe(
        name=said.get("name", path.stem),
        description=said.get("description", f"of {path.name}"),
        stages=stages,
        settings=_plain_settings(stages),
        model=said.get("model", ""),
        optional=some_roles(tree.values["optional"]) if "optional" in tree.values else (),
    )
    return _with_settings(recipe, tree.values.get("settings"))


def _plain_settings(stages: tuple[Stage | Repeat, ...]) -> dict[str, Setting]:
    repeating = {each.name: each.default for each in fields(Repeating)}
    return {**COMMON, **(repeating if any(isinstance(stage, Repeat) for stage in stages) else {})}


def _with_settings(recipe: Recipe, node: Node | None) -> Recipe:
    """Each setting by itself, so that an error says where it stands."""
    if node is None:
        return recipe
    given = some_settings(node)
    spots = node.spots if isinstance(node, Entries) else {}
    for name, value in given.items():
        try:
            recipe = override(recipe, {name: value})
        except PrunekitError as error:
            raise InputError(error.what, where=str(spots[name]), hint=error.hint) from error
    return recipe


def _read_stages(node: Node, *, repeats: bool) -> tuple[Any, ...]:
    if not isinstance(node, Several) or not 0 < len(node.items) <= MOST_STAGES:
        not_taken(node, f"a list of stages, {MOST_STAGES} at most: - prune: TITLE")
    return tuple(_read_stage(each, repeats=repeats) for each in node.items)


def _read_stage(node: Node, *, repeats: bool) -> Stage | Repeat:
    kinds = [*KINDS, REPEAT] if repeats else ["prune", "distil"]
    if not isinstance(node, Entries):
        not_taken(node, f"a mapping with one of {', '.join(kinds)}")
    said = [kind for kind in kinds if kind in node.values]
    if len(said) != 1:
        what = f"is {' and '.join(said)} at once" if said else f"is none of {', '.join(kinds)}"
        raise InputError(
            f"this stage {what}", where=str(node.spot), hint="write - prune: TITLE, and what it takes below"
        )
    (kind,) = said
    if kind != REPEAT:
        found: Stage = read_fields(KINDS[kind], node, kind)
        return found
    for other in node.values:
        if other != REPEAT:
            unknown_key(other, {REPEAT: None}, node.spots[other])
    return Repeat(_read_stages(node.values[REPEAT], repeats=False))


def _without_repeats(stages: tuple[Stage | Repeat, ...]) -> list[Stage]:
    return [each for stage in stages for each in (stage.stages if isinstance(stage, Repeat) else (stage,))]


def recipe_text(recipe: Recipe) -> str:
    """YAML that ``read_recipe`` reads as ``recipe``; what settings of its own arrange is written out in the stages.

    Raises RecipeError for what a file cannot say: a loss or weighting of one's own.
    """
    import yaml

    own = {each.name for each in fields(recipe.own)} if recipe.own else set()
    stages = recipe.stages if recipe.arrange is None else stages_of(recipe)
    plain = _plain_settings(stages)
    told: dict[str, Any] = {"name": recipe.name, "description": recipe.description}
    told |= {"model": recipe.model} if recipe.model else {}
    told |= {"optional": list(recipe.optional)} if recipe.optional else {}
    told["stages"] = [_stage_said(stage, recipe) for stage in stages]
    changed = {name: value for name, value in recipe.settings.items() if name not in own and plain.get(name) != value}
    told |= {"settings": changed} if changed else {}
    text: str = yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=110)
    return text


def _stage_said(stage: Stage | Repeat, recipe: Recipe) -> dict[str, Any]:
    if isinstance(stage, Repeat):
        return {REPEAT: [_stage_said(each, recipe) for each in stage.stages]}
    kind = next(name for name, known in KINDS.items() if known is type(stage))
    return {kind: stage.title, **{k: v for k, v in _fields_said(stage, recipe).items() if k != "title"}}


def _fields_said(value: Evaluate | Prune | Distil | Term, recipe: Recipe) -> dict[str, Any]:
    """What differs from the defaults."""
    known = keys_of(type(value))
    given = {each.name: getattr(value, each.name) for each in fields(value)}
    return {name: _yaml_value(each, recipe) for name, each in given.items() if each != known[name].default}


def _yaml_value(value: Any, recipe: Recipe) -> Any:
    if isinstance(value, Term):
        return _fields_said(value, recipe)
    if value in WEIGHTINGS.values():
        return next(name for name, known in WEIGHTINGS.items() if known == value)
    if isinstance(value, (tuple, list)):
        return [_yaml_value(each, recipe) for each in value]
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, (str, int, float, bool)):
        raise RecipeError(
            f"{recipe.name} has a part that a file cannot say: {value!r}",
            where=recipe.name,
            hint="what is code stays in Python, in a plug-in: docs/extending.md",
        )
    return value
