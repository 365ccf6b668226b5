"""``prunekit compare``: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import json
import sys
import textwrap

import pytest
from PIL import Image

from prunekit.cli.app import run

TOY = textwrap.dedent(
    """
    import timm
    import torch

    def vit():
        return timm.create_model(
            "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1, num_classes=5, embed_dim=48, num_heads=3
        )

    def indifferent():
        # nothing that is cut reaches the output
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
            torch.nn.Linear(16, 5),
        )
        torch.nn.init.zeros_(model[4].weight)
        return model
    """
)
VIT = ["compare", "python:toy_comparison:vit", "--images", "2", "--val-images", "2"]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "toy_comparison.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "toy_comparison", raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path


def refused(capsys, arguments):
    code = run(arguments)
    said = capsys.readouterr()
    assert code == 2
    assert "Traceback" not in said.err + said.out
    assert said.err.count("prunekit: ") == 1
    return said.err


def test_a_table_and_three_files(toy, capsys):
    out = toy / "out"
    names = "magnitude,activation,batch_norm_scale,taylor"
    code = run([*VIT, "--scorers", names, "--seeds", "2", "--target", "params<=70%", "--out", str(out)])
    said = capsys.readouterr()
    assert code == 0, said.err
    found = json.loads((out / "compare.json").read_text())
    assert {line["scorer"] for line in found["lines"]} == {"random", *names.split(",")}
    assert found["metric"] == "output_cosine"
    for line in found["lines"]:
        assert bool(line["trials"]) != bool(line["why"])
        assert all(trial["params"] <= 0.7 * found["params"] for trial in line["trials"])
        rows = [row for row in said.out.splitlines() if row.split()[:1] == [line["scorer"]]]
        assert len(rows) == 1
        if line["trials"]:
            assert f"{line['mean']:.4f}" in rows[0]
        else:
            assert line["why"][:20] in rows[0]
    assert "Taylor needs a loss" in said.out
    assert "fixed" in next(row for row in said.out.splitlines() if row.split()[:1] == ["magnitude"])
    table = (out / "compare.md").read_text()
    assert sum(row.startswith("| ") for row in table.splitlines()) == 2 + len(found["lines"])
    with Image.open(out / "compare.png") as picture:
        assert picture.width > 300
    assert run([*VIT, "--scorers", "lamp", "--seeds", "1", "--out", str(out)]) == 0
    assert {line["scorer"] for line in json.loads((out / "compare.json").read_text())["lines"]} == {"lamp", "random"}


def test_what_chance_does_as_well_is_said(toy, capsys):
    code = run(["compare", "python:toy_comparison:indifferent", "--scorers", "random,apoz", "--images", "2"])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "the control" in said.out
    assert "not told apart from random" in said.out
    assert "every cut leaves" in said.out


def test_no_column_is_lost_in_a_narrow_terminal(toy, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    options = [
        "--scorers",
        "magnitude,disturbed_taylor",
        "--seeds",
        "2",
        "--target",
        "params<=70%",
        "--ranking",
        "global",
    ]
    assert run([*VIT, *options]) == 0
    rows = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert ["scorer", "mean", "range", "runs", "params", "MACs", "against", "random"] in rows
    assert [row for row in rows if row[:1] == ["disturbed_taylor"]]


def test_json_is_all_that_json_prints(toy, capsys):
    photos = toy / "photos"
    photos.mkdir()
    for number in range(5):
        Image.new("RGB", (50, 40), (number * 50, 30, 60)).save(photos / f"{number}.png")
    (photos / "9.png").write_bytes(b"no image")
    folders = ["--data", str(photos), "--val", str(photos), "--ranking", "global"]
    code = run([*VIT, "--scorers", "all", "--seeds", "1", "--seed", "4", "--compensate", "ridge", "--json", *folders])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert said.err == ""
    found = json.loads(said.out)
    assert found["settings"]["of_images"] == 6
    assert found["skipped"]["count"] == 1
    assert "9.png" in found["skipped"]["items"][0]["name"]
    assert found["settings"]["images"] == 2
    assert found["settings"]["seeds"] == [4]
    assert found["settings"]["compensate"] == "ridge"
    names = {line["scorer"] for line in found["lines"]}
    assert {"random", "magnitude", "disturbed_taylor", "saliency", "wanda"} <= names
    assert not names & {"taylor", "fisher", "obd"}
    assert {line["verdict"] for line in found["lines"]} == {"control", "one seed", "failed"}


def test_without_matplotlib_there_is_a_notice_and_no_plot(toy, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code = run([*VIT, "--scorers", "magnitude", "--seeds", "1", "--out", str(toy / "out")])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "matplotlib is not installed" in said.out
    assert {file.name for file in (toy / "out").iterdir()} == {"compare.json", "compare.md", "checksums.json"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ratio", "1"], "--ratio 1 "),
        (["--ratio", "nan"], "--ratio nan"),
        (["--ratio", "0.5", "--target", "macs<=50%"], "--target"),
        (["--target", "macs=3"], "not a target"),
        (["--seeds", "0"], "--seeds 0"),
        (["--seed", "-1"], "--seed -1"),
        (["--images", "0"], "--images 0"),
        (["--val-images", "0"], "--val-images 0"),
        (["--scorers", "magnitud"], "magnitude"),
        (["--scorers", ","], "--scorers"),
        (["--scorers", "taylor,batch_norm_scale"], "no scorer can score this model"),
        (["--ranking", "best"], "not a ranking"),
        (["--compensate", "lasso"], "not a compensation"),
        (["--device", "toaster"], "--device toaster"),
        (["--data", "no_such_folder"], "no_such_folder"),
        (["--checkpoint", "no_such_file.pth"], "no_such_file.pth"),
    ],
)
def test_bad_options_are_refused(toy, capsys, arguments, message):
    assert message in refused(capsys, [*VIT, *arguments, "--out", str(toy / "out")])
    assert not (toy / "out").exists()


def test_a_folder_of_something_else_is_not_written_into(toy, capsys):
    (toy / "thesis").mkdir()
    (toy / "thesis" / "text").write_text("x")
    assert "not empty" in refused(capsys, [*VIT, "--out", str(toy / "thesis")])
    assert "is a file" in refused(capsys, [*VIT, "--out", str(toy / "thesis" / "text")])
    assert [file.name for file in (toy / "thesis").iterdir()] == ["text"]
