"""Commands that only tell: what they say of a model or a folder, that JSON says the same, and near names."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import torch
from torch import nn

import prunekit
from prunekit.cli.app import run
from prunekit.cli.command_table import COMMANDS

TOY = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
"""
SMALL = ["--scorer", "magnitude", "--set", "images=2", "--set", "val_images=2", "--set", "latency=false"]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "toy_telling.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "toy_telling", raising=False)
    return tmp_path


@pytest.fixture
def folders(tmp_path):
    """One network cut twice, at different ratios."""
    made = []
    for ratio in (0.25, 0.5):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
        result = prunekit.prune(model, torch.randn(1, 4), ratio=ratio, scorer="magnitude")
        made.append(prunekit.save(result, tmp_path / f"ratio-{ratio}"))
    return made


def told(capsys, *arguments):
    """What the command says as JSON."""
    assert run([*map(str, arguments), "--json"]) == 0, capsys.readouterr().err
    said = capsys.readouterr()
    assert said.err == ""
    return json.loads(said.out)


def test_a_structure_is_told_in_a_table_and_as_json(toy, capsys):
    found = told(capsys, "trace", "python:toy_telling:net")
    assert {name: group["size"] for name, group in found["groups"].items()} == {"0.weight:0": 8, "3.weight:0": 16}
    assert "1.running_var:0" in found["groups"]["0.weight:0"]["reaches"]
    assert found["frozen"][0]["name"] == "7.weight:0"
    assert run(["trace", "python:toy_telling:net"]) == 0
    shown = capsys.readouterr().out
    assert "0.weight:0" in shown
    assert "frozen  7.weight:0 (4)" in shown


def test_one_group_is_told_in_full_and_near_names_are_given(toy, capsys):
    assert run(["trace", "python:toy_telling:net", "--group", "3.weight:0"]) == 0
    assert "7.weight:1" in capsys.readouterr().out
    assert run(["trace", "python:toy_telling:net", "--group", "3.wait:0"]) == 2
    assert "did you mean 3.weight:0" in capsys.readouterr().err


def test_a_folder_says_what_was_kept(folders, capsys):
    plan = prunekit.Plan.from_json((folders[1] / "plan.json").read_text())
    found = told(capsys, "explain", folders[1])
    assert {name: row["after"] for name, row in found["groups"].items()} == {w.group: w.after for w in plan.widths}
    width = plan.widths[0]
    one = told(capsys, "explain", folders[1], "--group", width.group)["groups"][width.group]
    assert sorted([*one["removed"], *width.kept]) == list(range(width.before))
    assert run(["explain", str(folders[1]), "--group", width.group]) == 0
    assert f"{width.before} -> {width.after}" in capsys.readouterr().out
    assert run(["explain", str(folders[1]), "--group", "nothing"]) == 2
    assert run(["explain", str(folders[1] / "plan.json")]) == 2


def test_two_folders_differ_in_the_units_that_one_alone_keeps(folders, capsys):
    found = told(capsys, "diff", *folders)
    assert found["same_original"]
    assert found["asked"]["ratio"] == [0.25, 0.5]
    for row in found["widths"].values():
        assert row["after"][0] > row["after"][1]
        assert row["both"] == row["after"][1]  # the better half of units is among the better three quarters
    assert told(capsys, "diff", folders[0], folders[0])["widths"] == {}
    assert run(["diff", *map(str, folders)]) == 0
    assert "in both" in capsys.readouterr().out


def test_a_dry_run_writes_nothing_and_says_what_the_real_one_then_does(toy, capsys):
    before = sorted(toy.iterdir())
    arguments = ["prune", "python:toy_telling:net", "--ratio", "0.5", "--out", toy / "out", *SMALL]
    planned = told(capsys, *arguments, "--dry-run")
    assert sorted(path for path in toy.iterdir() if path.name != "__pycache__") == before
    done = told(capsys, *arguments)
    assert planned["params"] == done["params"]
    assert planned["widths"] == done["widths"]
    assert [step["title"] for step in planned["steps"]] == [stage["title"] for stage in done["stages"]]
    assert planned["disk_bytes"]["folder"] > 0
    assert run([*map(str, arguments), "--dry-run"]) == 0
    assert "nothing was written" in capsys.readouterr().out


def test_the_doctor_names_versions_plugins_and_what_a_model_would_do(toy, capsys):
    found = told(capsys, "doctor", "python:toy_telling:net")
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert {row["name"]: row["state"] for row in found["plugins"]}["sam"] == "loads"
    assert found["model"]["groups"] == 2
    assert "exported" in found["model"]["formats"]
    assert run(["doctor"]) == 0
    assert "prunekit" in capsys.readouterr().out


def test_a_broken_plugin_is_named_with_its_distribution(monkeypatch, capsys):
    from importlib.metadata import EntryPoint, distribution

    class Point(EntryPoint):
        dist = distribution("pytest")

    broken = Point("odd", "no_such_module:plugin", "prunekit.plugins")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [broken])
    (row,) = told(capsys, "doctor")["plugins"]
    assert row["from"].startswith("pytest ")
    assert "no_such_module" in row["state"]


def test_recipes_show_their_stages_and_settings(capsys):
    found = told(capsys, "recipes", "show", "iterative", "--set", "prune_steps=3")
    assert sum(stage["kind"] == "prune" for stage in found["stages"]) == 3
    assert found["settings"]["prune_steps"]["default"] == 3
    assert found["settings"]["ranking"]["accepts"] == "local, global, role, isomorphic"
    assert run(["recipes", "show", "iterative"]) == 0
    assert "prune_steps" in capsys.readouterr().out
    assert run(["recipes", "show", "iteratve"]) == 2
    assert "did you mean iterative" in capsys.readouterr().err


def test_settings_are_listed_with_what_they_may_be(capsys):
    rows = told(capsys, "list", "settings")
    assert rows["lr_schedule"]["accepts"] == "plateau, cosine, constant"
    assert all(row["doc"] for row in rows.values()), [name for name, row in rows.items() if not row["doc"]]


def test_a_wrong_command_gives_the_nearest(capsys):
    assert run(["explian"]) == 2
    assert "'explain'" in capsys.readouterr().err


def test_quiet_says_nothing_and_json_still_all(toy, folders, capsys):
    assert run(["explain", str(folders[0]), "-q"]) == 0
    assert capsys.readouterr().out == ""
    assert told(capsys, "explain", folders[0], "-q")["groups"]
    assert run(["prune", "python:toy_telling:net", "-q", "--out", str(toy / "out"), *SMALL]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "warning: " in said.err  # of inputs that were inferred


def test_every_sentence_is_the_first_of_its_commands_docstring():
    top = COMMANDS.values()
    for command in [each for one in top for each in (one.holds or {"": one}).values()]:
        assert command.load().__doc__.startswith(command.sentence.rstrip(".").split(":")[0]), command


def test_no_command_is_imported_for_the_help_of_all():
    code = (
        "import sys; from prunekit.cli.app import run; run(['--help']);"
        "left = {'prunekit.cli.commands.pruning', 'prunekit.options', 'torch'} & set(sys.modules);"
        "assert not left, left"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)


@pytest.mark.parametrize("columns", ["60", "120"])
@pytest.mark.parametrize("kind", ["scorers", "settings", "recipes", "roles"])
def test_no_name_is_cut_short_on_any_terminal(kind, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert run(["list", kind, "--json"]) == 0
    names = json.loads(capsys.readouterr().out)
    assert run(["list", kind]) == 0
    text = capsys.readouterr().out
    assert "…" not in text
    assert [name for name in names if not re.search(rf"(?m)^ ?{re.escape(name)}(\s|$)", text)] == []
    assert max(map(len, text.splitlines())) <= int(columns)
