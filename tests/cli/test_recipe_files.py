"""A recipe as a YAML file: every recipe that is installed can be said so and read back; what is wrong has a line."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from prunekit.cli.app import run
from prunekit.errors import InputError, RecipeError, RegistryError
from prunekit.recipes import ITERATIVE, Distil, Prune, Term, stages_of
from prunekit.registry import known_recipes
from prunekit.runfiles import read_recipe, read_run, recipe_named, recipe_text

MODEL = "python:recipe_file_nets:tiny_model"
NETS = "from benchmarks.faults.tiny import tiny_model\n"
MINE = """name: mine
description: half of the hidden units, then the rest
stages:
  - evaluate: before it
    key: before
  - repeat:
      - prune: cut
      - distil: recover
        weighting: falling
        terms:
          - name: output
            loss: cosine
  - evaluate: after it
    key: after
settings:
  prune_steps: 2
  epochs: 1
  align_epochs: 0
  images: 2
  train_images: 2
  val_images: 2
  latency: no
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "recipe_file_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(MINE)
    return tmp_path / "mine.yaml"


@pytest.mark.parametrize("name", sorted(known_recipes()))
def test_every_installed_recipe_is_read_back_as_it_was_written(name, tmp_path):
    recipe = known_recipes()[name]
    file = tmp_path / "again.yaml"
    file.write_text(recipe_text(recipe))
    again = read_recipe(file)
    assert stages_of(again) == stages_of(recipe)
    own = {each.name for each in fields(recipe.own)} if recipe.own else set()
    assert all(again.settings[key] == value for key, value in recipe.settings.items() if key not in own)
    assert (again.name, again.description, again.model) == (recipe.name, recipe.description, recipe.model)
    assert again.optional == recipe.optional


def test_repetition_stays_a_repetition(tmp_path):
    file = tmp_path / "again.yaml"
    file.write_text(recipe_text(ITERATIVE))
    assert read_recipe(file).stages == ITERATIVE.stages


def test_code_cannot_be_said(tmp_path):
    loss = Distil("own", (Term("own", loss=lambda mine, theirs: mine.sum()),))
    with pytest.raises(RecipeError, match="cannot say"):
        recipe_text(replace(ITERATIVE, stages=(Prune("prune"), loss)))


def test_a_run_by_a_file_leaves_the_recipe_and_can_be_done_again(mine, capsys):
    line = [
        "prune",
        "python:recipe_file_nets:tiny_model",
        "--recipe",
        "mine.yaml",
        "--ratio",
        "0.5",
        "--scorer",
        "magnitude",
    ]
    assert run([*line, "--out", "slim"]) == 0, capsys.readouterr().err
    mine.write_text("stages: gone\n")
    assert yaml.safe_load(Path("slim/run.yaml").read_text())["recipe"] == "slim/recipe.yaml"
    assert run(["run", "slim/run.yaml", "--out", "again"]) == 0, capsys.readouterr().err
    told = [json.loads(Path(folder, "report.json").read_text()) for folder in ("slim", "again")]
    assert told[0]["recipe"] == told[1]["recipe"] == "mine"
    assert told[0]["widths"] == told[1]["widths"]
    assert [stage["title"] for stage in told[0]["stages"]].count("cut, 2 of 2") == 1


def test_a_file_stands_wherever_a_name_does(mine, capsys):
    assert run(["recipes", "show", "mine.yaml", "--set", "epochs=3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["name"] == "mine"
    assert 3 in told["settings"]["epochs"].values()
    assert run(["recipes", "show", "mine.yaml", "--yaml"]) == 0
    Path("other.yaml").write_text(capsys.readouterr().out)
    assert read_recipe(Path("other.yaml")) == read_recipe(mine)
    assert recipe_named("mine.yaml") == read_recipe(mine)
    Path("slim.yaml").write_text(
        "model: python:recipe_file_nets:tiny_model\nrecipe: mine.yaml\nsettings:\n  epochs: 2\n"
    )
    assert read_run(Path("slim.yaml")).settings == {"epochs": "2"}


BAD = [
    ("stage:\n- prune: it\n", 1, "did you mean stages"),
    ("name: x\n", 1, "no stages"),
    ("stages: it\n", 1, "a list of stages"),
    ("stages: []\n", 1, "a list of stages"),
    ("stages:\n- evaluate: it\n  key: before\n", 1, "no stage prunes"),
    ("stages:\n- evaluate: it\n- prune: it\n", 2, "add key"),
    ("stages:\n- prune: it\n  pool: [[embedding]]\n", 3, "did you mean pools"),
    ("stages:\n- prune: it\n  distil: that\n", 2, "prune and distil at once"),
    ("stages:\n- title: it\n", 2, "none of"),
    ("stages:\n- prune\n", 2, "a mapping with one of"),
    ("stages:\n- prune: it\n  pools: embedding\n", 3, "a list of pools"),
    ("stages:\n- prune: it\n  pools:\n  - [mlp.hiden]\n", 4, "mlp.hidden"),
    ("stages:\n- prune: it\n  align:\n    embedding: half\n", 4, "a whole number"),
    ("stages:\n- prune: it\n  align: {embeding: 8}\n", 3, "embedding"),
    ("stages:\n- prune: it\n  part: 2\n", 3, "a share"),
    ("stages:\n- prune: it\n  part: nan\n", 3, "a share"),
    ("stages:\n- prune: it\n  reinitialise: perhaps\n", 3, "true or false"),
    ("stages:\n- prune: it\n- distil: it\n", 3, "add terms"),
    ("stages:\n- prune: it\n- distil: it\n  terms: []\n", 4, "a list of terms"),
    ("stages:\n- prune: it\n- distil: it\n  terms:\n  - name: a\n    loss: huber\n", 6, "mse"),
    ("stages:\n- prune: it\n- distil: it\n  terms:\n  - name: a\n    teacher: other\n", 6, "original"),
    ("stages:\n- prune: it\n- distil: it\n  weighting: rising\n  terms:\n  - name: a\n", 4, "even"),
    ("stages:\n- repeat:\n  - prune: it\n  - evaluate: it\n", 4, "prune, distil"),
    ("stages:\n- repeat:\n  - repeat:\n    - prune: it\n", 3, "prune, distil"),
    ("stages:\n- repeat:\n  - prune: it\n  times: 3\n", 4, "there is no key"),
    ("stages:\n- prune: it\nsettings:\n  epoch: 3\n", 4, "epochs"),
    ("stages:\n- prune: it\nsettings:\n  epochs: many\n", 4, "int"),
    ("stages:\n- prune: it\nsettings:\n  prune_steps: 3\n", 4, "no setting"),
    ("stages:\n- prune: it\noptional: mlp.hid\n", 3, "mlp.hidden"),
    ("stages:\n- prune: !!python/name:os.system it\n", 2, "tag"),
    ("stages:\n- &a prune: it\n", 2, "anchor"),
    ("stages:\n- prune: it\n- prune: it\n---\nstages: []\n", 4, "one recipe"),
    ("stages:\n- prune: " + "x" * 300 + "\n", 2, "characters"),
    ('stages:\n- prune: "a\\x1b[31m"\n', 2, "one line"),
    ("stages:\n" + "- prune: it\n" * 65, 2, "64 at most"),
    ("[]\n", 1, "a recipe is a mapping"),
]


@pytest.mark.parametrize(("text", "line", "word"), BAD, ids=[word for _, _, word in BAD])
def test_what_is_wrong_is_told_with_its_line_and_the_nearest_right_word(text, line, word, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        read_recipe(file)
    assert f"bad.yaml, line {line}" in str(caught.value)
    assert word in str(caught.value)


def test_a_file_that_is_missing_empty_or_huge_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml"):
        recipe_named(str(tmp_path / "none.yaml"))
    file = tmp_path / "bad.yaml"
    file.write_text("")
    with pytest.raises(InputError, match="needs stages"):
        read_recipe(file)
    file.write_text("#" * (2 << 20))
    with pytest.raises(InputError, match="too large for a recipe"):
        read_recipe(file)
    with pytest.raises(RegistryError, match="oneshot"):
        recipe_named("oneshoot")


def test_an_error_in_the_recipe_of_a_run_says_where_it_is(mine, capsys):
    mine.write_text("stages:\n- prun: it\n")
    Path("slim.yaml").write_text("model: python:recipe_file_nets:tiny_model\nrecipe: mine.yaml\n")
    assert run(["run", "slim.yaml"]) == 2
    assert "mine.yaml, line 2" in capsys.readouterr().err
    Path("slim.yaml").write_text("model: python:recipe_file_nets:tiny_model\nrecipe: none.yaml\n")
    assert run(["run", "slim.yaml"]) == 2
    assert "none.yaml" in capsys.readouterr().err
