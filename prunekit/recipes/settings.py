"""Settings of a recipe: overriding them by text, typed by their defaults, and checking them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches

from prunekit.errors import RecipeError
from prunekit.recipes.stages import ALPHAS, Recipe, Setting, named

_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "ranking": ("local", "global", "role", "isomorphic"),
    "schedule": ("cubic", "linear"),
    "compensate": ("", "ridge"),
    "precision": ("fp32", "bf16", "fp16"),
    "teacher_cache": ("memory", "disk", "off"),
    "verify": ("auto", "full", "shapes"),
    "lr_schedule": ("plateau", "cosine", "constant"),
}
_AT_LEAST_ONE = ("images", "val_images", "batch", "accumulate", "epochs", "prune_steps")


def override(recipe: Recipe, values: Mapping[str, object]) -> Recipe:
    """``recipe`` with some settings replaced; text is read as the type of the default.

    Raises RecipeError for an unknown setting (with the nearest) and for a value of another type or out of range.
    """
    settings = dict(recipe.settings)
    for name, value in values.items():
        if name not in settings:
            near = get_close_matches(name, settings, n=3, cutoff=0.4) or sorted(settings)
            raise RecipeError(f"recipe {recipe.name} has no setting {name!r}", hint=f"try {', '.join(near)}")
        settings[name] = _checked(name, _typed(name, value, settings[name]))
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


def _checked(name: str, value: Setting) -> Setting:
    choices = _choices(name)
    if choices and value not in choices:
        known = ", ".join(choice or "(empty)" for choice in choices)
        raise RecipeError(f"setting {name}={value!r} is unknown", hint=f"one of {known}")
    if name == "alpha" and (wrong := [word for word in named(value) if word not in ALPHAS]):
        raise RecipeError(f"setting alpha={wrong[0]!r} is unknown", hint=f"one of {', '.join(ALPHAS)}, or several")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value) or value < 0:
            raise RecipeError(f"setting {name}={value} is out of range", hint="a finite number, at least 0")
        if name in _AT_LEAST_ONE and value < 1:
            raise RecipeError(f"setting {name}={value} is out of range", hint="at least 1")
    return value


def _choices(name: str) -> tuple[str, ...]:
    # Imported when asked for: a plug-in brings recipes as data, and loading a pruned model reads no criterion
    if name == "accumulation":
        from prunekit.scorers.accumulate import ACCUMULATIONS

        return tuple(ACCUMULATIONS)
    if name == "normaliser":
        from prunekit.scorers.normalisers import NORMALISERS

        return tuple(NORMALISERS)
    return _CHOICES.get(name, ())
