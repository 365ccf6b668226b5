"""The command, in process: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest
import torch
from PIL import Image

import prunekit
from prunekit.cli.app import run

TOY = textwrap.dedent(
    """
    import timm
    import torch

    def vit():
        return timm.create_model(
            "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=5, embed_dim=48, num_heads=3
        )

    class Broken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 4)

        def forward(self, x):
            raise RuntimeError("not today")

    def broken():
        return Broken()

    def fails():
        raise ValueError("no model here")
    """
)
SMALL = ["--set", "images=2", "--set", "val_images=2", "--set", "latency=false"]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "toy_models.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "toy_models", raising=False)
    return tmp_path


def refused(capsys, arguments, folder, code=2):
    ended = run([*arguments, "--out", str(folder / "out")])
    said = capsys.readouterr()
    assert ended == code
    assert "Traceback" not in said.err + said.out
    assert said.err.startswith("prunekit: ")
    assert said.err.count("prunekit: ") == 1
    assert not (folder / "out").exists()
    assert not [file for file in folder.iterdir() if file.name.startswith(".out")]
    return said.err


def test_prune_once_writes_a_folder_that_loads(toy, capsys):
    code = run(["prune", "python:toy_models:vit", "--scorer", "magnitude", "--out", str(toy / "out"), *SMALL])
    assert code == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert "parameters" in shown
    assert "output_cosine" in shown
    names = {file.name for file in (toy / "out").iterdir()}
    assert names == {
        *("model.safetensors", "plan.json", "report.json", "model.json", "checksums.json"),
        *("widths.png", "report.html", "README.md", "page.json", "run.yaml"),
    }
    with Image.open(toy / "out" / "widths.png") as picture:
        assert picture.width > 100
    assert prunekit.load(toy / "out")(torch.zeros(1, 3, 32, 32)).shape == (1, 5)


def test_json_is_all_that_json_prints(toy, capsys):
    code = run(["prune", "python:toy_models:vit", "--scorer", "magnitude", "--json", "--out", str(toy / "out"), *SMALL])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert said.err == ""
    report = json.loads(said.out)
    written = json.loads((toy / "out" / "report.json").read_text())
    for key in ("params", "macs", "layer_macs", "whole_params", "whole_macs", "whole_layer_macs"):
        assert report[key] == written[key]
        assert report[key]["after"] <= report[key]["before"]
    assert set(report["metric"]) == {"name", "before", "after"}
    assert report["verify"]["shapes"] == "passed"


def test_images_of_a_folder_are_used(toy, capsys):
    (toy / "photos").mkdir()
    for number in range(2):
        Image.new("RGB", (50, 40), (number * 90, 30, 60)).save(toy / "photos" / f"{number}.png")
    photos = str(toy / "photos")
    code = run(["prune", "python:toy_models:vit", "--data", photos, "--val", photos, "--out", str(toy / "out"), *SMALL])
    assert code == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ratio", "1"], "--ratio 1"),
        (["--ratio", "-0.1"], "--ratio -0.1"),
        (["--ratio", "nan"], "--ratio nan"),
        (["--ratio", "much"], "--ratio much"),
        (["--ratio", "mlp.hidden=2"], "--ratio mlp.hidden=2"),
        (["--ratio", "0.5,mlp.hidden=0.2"], "unclear"),
        (["--ratio", "hidden=0.2"], "'hidden' matches no group"),
        (["--target", "macs<=50%", "--ratio", "0.2"], "give one of them"),
        (["--target", "makes<=50%"], "makes"),
        (["--target", "params<=1"], "out of reach"),
        (["--include", "nowhere*"], "nowhere*"),
        (["--scorer", "magnitud"], "magnitude"),
        (["--recipe", "slimsm"], "unknown recipe"),
        (["--set", "imags=2"], "images"),
        (["--set", "images"], "key=value"),
        (["--set", "images=x"], "type int"),
        (["--device", "toaster"], "--device toaster"),
        (["--seed", "-1"], "--seed"),
        (["--data", "no_such_folder"], "no_such_folder"),
        (["--checkpoint", "no_such_file.pth"], "no_such_file.pth"),
        (["--bogus"], "bogus"),
    ],
)
def test_bad_options_are_refused(toy, capsys, arguments, message):
    assert message in refused(capsys, ["prune", "python:toy_models:vit", *arguments], toy)


@pytest.mark.parametrize(
    ("spec", "message", "code"),
    [
        ("timm:vit_tiny_patch16_22", "timm:vit_tiny_patch16_224", 2),
        ("python:toy_models:vitt", "python:toy_models:vit", 2),
        ("python:no_such_module:f", "no_such_module", 2),
        ("python:toy_models:fails", "no model here", 2),
        ("python:toy_models:broken", "not today", 3),  # it is there, and cannot be traced
        ("nonsense", "nonsense", 2),
    ],
)
def test_bad_models_are_refused(toy, capsys, spec, message, code):
    assert message in refused(capsys, ["prune", spec], toy, code)


def test_no_model_is_refused(toy, capsys):
    assert "no model" in refused(capsys, ["prune"], toy)


@pytest.mark.parametrize("kind", ["truncated", "keys", "text"])
def test_bad_checkpoints_are_refused(toy, capsys, kind):
    path = toy / "weights.pth"
    torch.save({"a": torch.zeros(1000)}, path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:900])
    elif kind == "text":
        path.write_text("hello")
    message = refused(capsys, ["prune", "python:toy_models:vit", "--checkpoint", str(path)], toy)
    assert ("does not fit" if kind == "keys" else "cannot read") in message


def test_bad_images_are_refused(toy, capsys):
    (toy / "photos").mkdir()
    command = ["prune", "python:toy_models:vit", "--data", str(toy / "photos"), *SMALL]
    assert "no images" in refused(capsys, command, toy)
    (toy / "photos" / "a.png").write_bytes(b"not an image")
    assert "a.png" in refused(capsys, command, toy)


def test_a_run_goes_on_without_bad_images(toy, capsys):
    (toy / "photos").mkdir()
    for name in ("b.png", "c.png"):
        Image.new("RGB", (40, 30), "red").save(toy / "photos" / name)
    (toy / "photos" / "a.png").write_bytes(b"not an image")
    photos = str(toy / "photos")
    code = run(["prune", "python:toy_models:vit", "--data", photos, "--val", photos, "--out", str(toy / "out"), *SMALL])
    said = capsys.readouterr()
    assert code == 0, said.err
    skipped = json.loads((toy / "out" / "report.json").read_text())["skipped"]
    assert skipped["count"] == 1
    assert skipped["items"][0]["name"] == str(toy / "photos" / "a.png")
    assert "cannot read the image" in skipped["items"][0]["reason"]
    assert "skipped  1 unusable samples" in said.out


def test_a_folder_of_something_else_is_not_overwritten(toy, capsys):
    (toy / "thesis").mkdir()
    (toy / "thesis" / "text").write_text("x")
    code = run(["prune", "python:toy_models:vit", "--out", str(toy / "thesis")])
    assert code == 2
    assert "not empty" in capsys.readouterr().err
    assert (toy / "thesis" / "text").read_text() == "x"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("scorers", "disturbed_taylor"),
        ("recipes", "slimsam"),
        ("models", "sam:nano"),
        ("formats", "exported"),
        ("plugins", "sam"),
    ],
)
def test_lists(capsys, kind, name):
    assert run(["list", kind]) == 0
    assert name in capsys.readouterr().out
    assert run(["list", kind, "--json"]) == 0
    assert name in json.loads(capsys.readouterr().out)


def test_an_unknown_list_gives_the_nearest(capsys):
    assert run(["list", "scorer"]) == 2
    assert "scorers" in capsys.readouterr().err


def test_help_does_not_wait_for_torch():
    code = "import sys; from prunekit.cli.app import run; run(['--help']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)
