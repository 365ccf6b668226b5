from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import prunekit
from prunekit.checkpoints import load, read, save
from prunekit.errors import CheckpointError
from prunekit.plans.bundle import Bundle
from prunekit.plans.contents import Plan

SPEC = "timm:vit_tiny_patch16_224"
OPTIONS = {"img_size": 32, "patch_size": 8, "depth": 2, "num_classes": 5}


def built():
    from prunekit.registry import build

    torch.manual_seed(0)
    return build(SPEC, plugins=[], **OPTIONS)


@pytest.fixture
def kept(tmp_path):
    model, x = built().model, torch.randn(2, 3, 32, 32)
    result = prunekit.prune(model, x[:1], ratio=0.5)
    folder = save(Bundle(model, result.plan, result.report, SPEC, OPTIONS), tmp_path / "out")
    return folder, x, model(x).detach()


def test_a_fresh_process_gives_equal_outputs(kept, tmp_path):
    folder, x, y = kept
    torch.save({"x": x}, tmp_path / "x.pt")
    code = (
        "import sys, torch, prunekit; torch.set_num_threads(1)\n"
        "x = torch.load(sys.argv[2], weights_only=True)['x']\n"
        "torch.save({'y': prunekit.load(sys.argv[1])(x).detach()}, sys.argv[3])\n"
    )
    out = tmp_path / "y.pt"
    subprocess.run([sys.executable, "-c", code, str(folder), str(tmp_path / "x.pt"), str(out)], check=True, timeout=60)
    # one thread there, perhaps more here: sums may be ordered differently, nothing else may differ
    torch.testing.assert_close(torch.load(out, weights_only=True)["y"], y, rtol=1e-5, atol=1e-6)


def test_a_given_model_is_pruned_and_loaded(kept):
    folder, x, y = kept
    model = built().model
    assert load(folder, model) is model
    torch.testing.assert_close(model(x), y, rtol=0, atol=0)


def test_the_folder_holds_no_pickle_and_a_readable_report(kept):
    folder = kept[0]
    assert {file.name for file in folder.iterdir()} == {
        *("model.safetensors", "plan.json", "report.json", "model.json", "checksums.json"),
        *("README.md", "report.html"),
    }
    report = json.loads((folder / "report.json").read_text())
    assert report["params"]["after"] < report["params"]["before"]


@pytest.mark.parametrize("name", ["model.safetensors", "plan.json", "model.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "foreign"])
def test_a_damaged_folder_is_refused_by_name(kept, name, damage):
    folder = kept[0]
    path = folder / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:40] if damage == "truncated" else b'{"format": "other"}')
    with pytest.raises(CheckpointError, match=name):
        load(folder)


def test_a_model_needs_no_report(kept):
    folder, x, y = kept
    report = read(folder).report
    assert report["params"]["after"] < report["params"]["before"]
    (folder / "report.json").unlink()
    assert read(folder).report == {}
    torch.testing.assert_close(load(folder)(x), y, rtol=0, atol=0)


def test_a_model_that_does_not_fit_is_refused_and_left_alone(kept):
    model = nn.Linear(4, 4)
    before = model.weight.clone()
    with pytest.raises(prunekit.PrunekitError):
        load(kept[0], model)
    assert torch.equal(model.weight, before)


def test_without_a_name_a_model_is_asked_for(tmp_path):
    model = nn.Linear(4, 4)
    save(Bundle(model, Plan("x", (), ()), {}), tmp_path / "out")
    with pytest.raises(CheckpointError, match="fresh instance"):
        load(tmp_path / "out")


def test_a_failing_extra_leaves_nothing(tmp_path):
    def fail(path):
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save(Bundle(nn.Linear(2, 2), Plan("x", (), ()), {}), tmp_path / "out", extras={"a.png": fail})
    assert not list(tmp_path.iterdir())
