from __future__ import annotations

import pytest

from prunekit.errors import RecipeError
from prunekit.recipes import COMMON, Distil, Even, Falling, Recipe, override, parse

RECIPE = Recipe("r", "", (), COMMON)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("lr", "3e-4", 3e-4), ("images", "7", 7), ("distill", "false", False), ("ranking", "global", "global")],
)
def test_text_is_read_as_the_type_of_the_default(name, text, value):
    found = override(RECIPE, {name: text}).settings[name]
    assert found == value
    assert type(found) is type(COMMON[name])
    assert RECIPE.settings[name] == COMMON[name]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rankin", "local", "ranking"),
        ("images", "many", "type int"),
        ("images", "0", "at least 1"),
        ("lr", "nan", "out of range"),
        ("lr", "-1", "out of range"),
        ("distill", "maybe", "type bool"),
        ("ranking", "lokal", "local, global"),
        ("lr_schedule", "x", "plateau"),
    ],
)
def test_what_cannot_be_used_is_named(name, text, message):
    with pytest.raises(RecipeError, match=message):
        override(RECIPE, {name: text})


def test_pairs():
    assert parse(["a=1", "b = x=y "]) == {"a": "1", "b": "x=y"}
    with pytest.raises(RecipeError, match="key=value"):
        parse(["a"])


def test_schedules_of_the_paper():
    constant, linear = Distil("", (), Even()), Distil("", (), Falling())
    assert [constant.weighting.weight(n, 2) for n in range(4)] == [0.5, 0.5, 0, 0]
    assert [linear.weighting.weight(n, 4) for n in range(6)] == [0.75, 0.5, 0.25, 0, 0, 0]
