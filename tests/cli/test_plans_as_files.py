"""``prunekit plan`` and ``prunekit apply``: the two halves of ``prune``, with a file to look at between them."""

from __future__ import annotations

import json
import shlex
import sys
import textwrap

import pytest
import torch

import prunekit
from prunekit.cli.app import run

NETS = textwrap.dedent(
    """
    from benchmarks.faults.tiny import tiny_model
    from torch import nn

    def nothing_to_cut():
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        net.pretrained_cfg = {"input_size": (3, 8, 8)}
        return net.eval()
    """
)
MODEL = "python:plan_file_nets:tiny_model"


@pytest.fixture
def nets(tmp_path, monkeypatch):
    (tmp_path / "plan_file_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "plan_file_nets", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys, *line, code=0):
    ended = run([str(word) for word in line])
    told = capsys.readouterr()
    assert ended == code, told.err
    assert "Traceback" not in told.err + told.out
    return told.out if code == 0 else told.err


def test_a_plan_applied_is_what_prune_would_have_made(nets, capsys):
    more = ("--ratio", "0.4", "--scorer", "disturbed_taylor", "--seed", "3")
    told = json.loads(said(capsys, "plan", MODEL, *more, "--images", "2", "--json"))
    assert told["params"]["after"] < told["params"]["before"]
    report = json.loads(said(capsys, "apply", "plan.json", MODEL, "--seed", "3", "--out", "applied", "--json"))
    assert report["params"] == told["params"]
    said(
        capsys, "prune", MODEL, *more, "--set=images=2", "--set=val_images=1", "--set=latency=false", "--out", "pruned"
    )
    wanted, found = prunekit.load("pruned").state_dict(), prunekit.load("applied").state_dict()
    assert wanted.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in wanted.items())
    assert (nets / "pruned" / "plan.json").read_text() == (nets / "applied" / "plan.json").read_text()
    assert "a plan" in (nets / "applied" / "README.md").read_text()
    assert "criterion ``" not in (nets / "applied" / "README.md").read_text()
    folder = json.loads(said(capsys, "apply", "pruned", MODEL, "--seed", "3", "--out", "again", "--json"))
    assert folder["params"] == told["params"]


def test_a_plan_is_shown_with_the_command_that_applies_it(nets, capsys):
    shown = said(capsys, "plan", MODEL, "--scorer", "magnitude", "--seed", "2")
    assert f"prunekit apply plan.json {MODEL} --seed 2 --out FOLDER" in shown
    assert "frozen" in shown
    said(capsys, "plan", MODEL, "--scorer", "magnitude", "--ratio", "0.2")  # over the earlier one
    shown = said(capsys, "apply", "plan.json", MODEL, "--compensate", "ridge", "--out", "refitted")
    assert "groups are smaller" in shown


def test_models_that_are_refused_are_3(nets, capsys):
    assert "nothing can be pruned" in said(capsys, "plan", "python:plan_file_nets:nothing_to_cut", code=3).lower()
    assert not (nets / "plan.json").exists()


def test_a_plan_that_changes_what_the_model_returns_is_refused(nets, capsys):
    said(capsys, "plan", MODEL, "--scorer", "magnitude")
    plan = json.loads((nets / "plan.json").read_text())
    plan["cuts"] += [{"tensor": name, "axis": 0, "size": 4, "kept": [0]} for name in ("2.weight", "2.bias")]
    (nets / "plan.json").write_text(json.dumps(plan))
    assert "returns" in said(capsys, "apply", "plan.json", MODEL, "--out", "out", code=3)
    assert not (nets / "out").exists()


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (["plan", MODEL, "--ratio", "0.2", "--target", "macs<=50%"], "give one of them"),
        (["plan", MODEL, "--images", "0"], "--images 0"),
        (["plan", MODEL, "--seed", "-1"], "--seed"),
        (["plan", MODEL, "--data", "nowhere"], "nowhere"),
        (["plan", MODEL, "--out", "."], "is a folder"),
        (["plan", MODEL, "--out", "no/where.json"], "not there"),
        (["plan", MODEL, "--out", "plan_file_nets.py"], "no plan"),
        (["plan", MODEL, "--compensate", "ridge"], "--compensate"),
        (["plan", MODEL, "--scorer", "magnitud"], "magnitude"),
        (["apply", "nowhere.json", MODEL], "nowhere.json"),
        (["apply", "plan_file_nets.py", MODEL], "not a plan"),
        (["apply", "mine.json", "python:plan_file_nets:nothing_to_cut"], "another structure"),
        (["apply", "mine.json", MODEL, "--compensate", "rigde"], "ridge"),
        (["apply", "mine.json", MODEL, "--checkpoint", "none.pth"], "none.pth"),
        (["apply", "mine.json", MODEL, "--device", "toaster"], "toaster"),
        (["apply", "mine.json", MODEL, "--out", "plan_file_nets.py"], "is a file"),
    ],
)
def test_what_cannot_be_is_2_and_leaves_nothing(nets, capsys, line, word):
    if "mine.json" in line:
        said(capsys, "plan", MODEL, "--scorer", "magnitude", "--out", "mine.json", "-q")
    before = sorted(nets.rglob("*"))
    assert word in said(capsys, *line, code=2)
    assert sorted(path for path in nets.rglob("*") if "__pycache__" not in path.parts) == [
        path for path in before if "__pycache__" not in path.parts
    ]


def test_folders_with_brackets_and_spaces_are_named_as_they_are(nets, capsys):
    """A console that reads ``[/b]`` as the end of a colour ends in an error of its own when the work is done."""
    said(capsys, "plan", MODEL, "--scorer", "magnitude", "--out", "[a] plan.json")
    told = said(capsys, "apply", "[a] plan.json", MODEL, "--out", "[bold] cut[/b]")
    assert "kept in [bold] cut[/b]\n" in told
    small = ("--scorer=magnitude", "--set=images=1", "--set=val_images=1", "--set=latency=false")
    told = said(capsys, "prune", MODEL, *small, "--out", "[red] run[/b]")
    assert "kept in [red] run[/b] after" in told
    (line,) = [line for line in told.splitlines() if line.endswith(" does it again")]
    words = shlex.split(line.removesuffix(" does it again"))
    assert words[:2] == ["prunekit", "run"]
    assert (nets / words[2]).is_file()
    said(capsys, "explain", "[red] run[/b]")
    assert "[red] run[/b]" in said(capsys, "diff", "[bold] cut[/b]", "[red] run[/b]")
