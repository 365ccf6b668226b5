"""Folders that something has written over: what loads is what was saved, and everything else is refused by name."""

from __future__ import annotations

import json
import random
import shutil

import pytest
import torch
from torch import nn

import prunekit
from benchmarks.faults.mutation import with_another_value, with_other_bytes
from prunekit.errors import CheckpointError, PlanError, PrunekitError
from prunekit.plans import Plan

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
FILES = ("model.safetensors", "plan.json", "model.json", "checksums.json")


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 4, 1)).eval()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "slim"
    result = prunekit.prune(net(), X, ratio=0.5, scorer="magnitude")
    prunekit.save(result, folder)
    with torch.no_grad():
        return folder, result.model(X)


@pytest.mark.parametrize("checked", [True, False], ids=["checksums", "no checksums"])
def test_a_damaged_folder_is_right_or_refused(good, checked, tmp_path):
    folder, wanted = good
    draw, outcomes = random.Random(0), {"right": 0, "refused": 0, "other values": 0}
    for _ in range(150):
        shutil.rmtree(tmp_path / "slim", ignore_errors=True)
        shutil.copytree(folder, tmp_path / "slim")
        name = draw.choice(FILES if checked else FILES[:3])
        if not checked:
            (tmp_path / "slim" / "checksums.json").unlink()
        file = tmp_path / "slim" / name
        if name.endswith("json") and draw.random() < 0.7:
            file.write_text(with_another_value(file.read_text(), draw))
        else:
            file.write_bytes(with_other_bytes(file.read_bytes(), draw))
        try:
            with torch.no_grad():
                same = torch.equal(prunekit.load(tmp_path / "slim", net())(X), wanted)
        except PrunekitError:
            outcomes["refused"] += 1
        else:
            outcomes["right" if same else "other values"] += 1
    assert outcomes["refused"] > 60
    assert not checked or outcomes["other values"] == 0  # a flipped bit of a weight is seen by its checksum alone


def test_a_folder_without_checksums_says_so(good, tmp_path, caplog):
    shutil.copytree(good[0], tmp_path / "slim")
    (tmp_path / "slim" / "checksums.json").unlink()
    prunekit.load(tmp_path / "slim", net())
    assert "no checksums" in caplog.text


@pytest.mark.parametrize("name", ["model.safetensors", "plan.json", "model.json"])
def test_every_file_that_makes_the_model_is_checked(good, tmp_path, name):
    shutil.copytree(good[0], tmp_path / "slim")
    file = tmp_path / "slim" / name
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        prunekit.load(tmp_path / "slim", net())


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("cuts", 0, "axis"), "x"),
        (("cuts", 0, "axis"), 9),
        (("cuts", 0, "kept", 1), "x"),
        (("cuts", 0, "kept", 1), 0),
        (("cuts", 0, "kept", -1), 10**6),
        (("cuts", 0, "size"), -3),
        (("cuts", 0, "tensor"), ["x"]),
        (("cuts", 0, "extra"), 1),
        (("widths", 0, "kept"), {"a": 1}),
        (("edits",), [{"module": "", "attribute": "x", "index": None, "before": "a", "after": 1}]),
    ],
)
def test_a_plan_of_a_stranger_is_read_by_its_types(where, value):
    told = json.loads(prunekit.plan(net(), X, ratio=0.5, scorer="magnitude").to_json())
    holder = told
    for key in where[:-1]:
        holder = holder[key]
    holder[where[-1]] = value
    with pytest.raises(PlanError):
        prunekit.apply(net(), Plan.from_json(json.dumps(told)))
