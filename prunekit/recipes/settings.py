"""Settings of a recipe: overriding them by text, typed by their defaults, and checking them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches

from prunekit.errors import RecipeError
from prunekit.options.fields import Said, Setting
from prunekit.recipes.records import choices_of, said_of_settings
from prunekit.recipes.stages import Recipe

LARGEST = 1e12  # of any setting: beyond it sums and steps overflow
_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


def override(recipe: Recipe, values: Mapping[str, object]) -> Recipe:
    """``recipe`` with some settings replaced; text is read as the type of the default.

    Raises RecipeError for an unknown setting (with the nearest) and for a value of another type or out of range.
    """
    settings = dict(recipe.settings)
    known = said_of_settings(*([] if recipe.own is None else [recipe.own]))
    for name, value in values.items():
        if name not in settings:
            near = get_close_matches(name, settings, n=3, cutoff=0.4) or sorted(settings)
            raise RecipeError(f"recipe {recipe.name} has no setting {name!r}", hint=f"try {', '.join(near)}")
        settings[name] = _in_range(name, _typed(name, value, settings[name]), known.get(name, Said("")))
    return replace(recipe, settings=settings)


def parse(pairs: Iterable[str]) -> dict[str, str]:
    """``["key=value", ...]`` as a mapping. Raises RecipeError for anything without an equals sign."""
    out = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise RecipeError(f"{pair!r} is no setting", hint="write --set key=value")
        out[name.strip()] = value.strip()
    return out


def _typed(name: str, value: object, default: Setting) -> Setting:
    kind = type(default)
    if type(value) is kind:
        return value
    text = str(value).strip()
    try:
        if kind is bool:
            if text.lower() not in _TRUE | _FALSE:
                raise ValueError
            return text.lower() in _TRUE
        return kind(text)
    except ValueError:
        raise RecipeError(
            f"setting {name}={text!r} is not of type {kind.__name__}", hint=f"for example {name}={default}"
        ) from None


def _in_range(name: str, value: Setting, about: Said) -> Setting:
    choices = choices_of(about)
    if choices and value not in choices:
        known = ", ".join(str(choice) or "(empty)" for choice in choices)
        raise RecipeError(f"setting {name}={value!r} is unknown", hint=f"one of {known}")
    if about.check is not None:
        about.check(name, value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value) or value < 0:
            raise RecipeError(f"setting {name}={value} is out of range", hint="a finite number, at least 0")
        if value > LARGEST:
            raise RecipeError(f"setting {name}={value} is out of range", hint=f"at most {LARGEST:g}")
        if value < about.least:
            raise RecipeError(f"setting {name}={value} is out of range", hint=f"at least {about.least:g}")
    return value
