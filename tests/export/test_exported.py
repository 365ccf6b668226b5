"""Exports of any model: a torch.export program that gives what the pruned model gives, or a refusal and no folder."""

from __future__ import annotations

import json
import math
import sys

import pytest
import torch
from torch import nn

import prunekit
from prunekit.checkpoints import save
from prunekit.cli.app import run as command
from prunekit.errors import CheckpointError, ExportError, InputError, RegistryError
from prunekit.exports import export, formats_for, known_formats
from prunekit.exports.agreement import agreeing, difference_of
from prunekit.plans.bundle import Bundle
from prunekit.plans.contents import Plan, fingerprint
from prunekit.plugins import ModelEntry, Plugin
from prunekit.registry import build

SPEC = "timm:vit_tiny_patch16_224"
OPTIONS = {"img_size": 32, "patch_size": 8, "depth": 2, "num_classes": 5, "embed_dim": 48, "num_heads": 3}


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    torch.manual_seed(0)
    model = build(SPEC, plugins=[], **OPTIONS).model
    result = prunekit.prune(model, torch.randn(1, 3, 32, 32), ratio=0.5)
    folder = tmp_path_factory.mktemp("pruned") / "slim"
    return save(Bundle(model, result.plan, result.report, SPEC, OPTIONS), folder)


def kept(folder, model):
    """``model`` as it is, as a folder of prunekit."""
    return save(Bundle(model, Plan(fingerprint(model), (), ()), {}), folder)


def nothing_but(folder, *names):
    assert {path.name for path in folder.iterdir()} == set(names)


class Flat(nn.Module):
    """Takes one image at a time, and says so nowhere."""

    def __init__(self):
        super().__init__()
        self.image_size = 4
        self.stem = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return self.stem(x).view(1, 2 * 4 * 4)


class Decides(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else x


def test_a_pruned_model_comes_back_as_a_program_for_any_batch(pruned, tmp_path):
    done = export(pruned, "exported", tmp_path / "out")
    assert done.files == ("program.pt2",)
    assert [found.difference <= 1e-4 for found in done.compared] == [True, True]
    model, program = prunekit.load(pruned), torch.export.load(tmp_path / "out" / "program.pt2").module()
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 32, 32)
        torch.testing.assert_close(program(x), model(x), rtol=0, atol=1e-5)
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert record["spec"] == SPEC
    assert [found["name"] for found in record["compared"]] == [found.name for found in done.compared]


def test_code_for_one_batch_size_is_exported_at_one(tmp_path):
    torch.manual_seed(0)
    model = Flat()
    done = export(kept(tmp_path / "in", model), "exported", tmp_path / "out", model=Flat())
    assert [found.name for found in done.compared] == ["program.pt2: output 0 at batch 1"]
    x = torch.randn(1, 3, 4, 4)
    program = torch.export.load(tmp_path / "out" / "program.pt2").module()
    torch.testing.assert_close(program(x), model(x), rtol=0, atol=1e-6)


def test_a_model_that_decides_by_values_is_refused_and_leaves_nothing(tmp_path):
    folder = kept(tmp_path / "in", Decides())
    with pytest.raises(ExportError, match="decide by values"):
        export(folder, "exported", tmp_path / "out", model=Decides())
    nothing_but(tmp_path, "in")


def test_a_precision_that_a_format_has_not_is_refused(pruned, tmp_path):
    with pytest.raises(ExportError, match="fp32, not fp16"):
        export(pruned, "exported", tmp_path / "out", precisions=["fp16"])
    with pytest.raises(InputError, match="fp8"):
        export(pruned, "exported", tmp_path / "out", precisions=["fp8"])
    nothing_but(tmp_path)


def test_formats_are_those_of_the_model(pruned, tmp_path):
    assert set(formats_for(SPEC)) == {"exported", "onnx"}
    assert {"exported", "hf", "sam", "onnx"} <= set(known_formats())
    with pytest.raises(RegistryError, match="exported"):
        export(pruned, "exprted", tmp_path / "out")
    with pytest.raises(RegistryError, match="for this model: exported"):
        export(pruned, "hf", tmp_path / "out")
    nothing_but(tmp_path)


def test_a_plug_in_says_which_of_its_formats_are_for_which_model():
    def picture(bundle, folder, precisions):
        raise AssertionError("not asked for")

    models = {"a": ModelEntry(nn.Identity, formats=("picture",)), "b": ModelEntry(nn.Identity)}
    toy = Plugin("toy", models, formats={"picture": picture})
    assert set(known_formats([toy])) == set(formats_for("toy:a", [toy])) == {"exported", "onnx", "picture"}
    assert set(formats_for("toy:b", [toy])) == set(formats_for("toy:c", [toy])) == {"exported", "onnx"}


def test_an_export_replaces_an_export_and_nothing_else(pruned, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("x")
    before = {path.name: path.read_bytes() for path in pruned.iterdir()}
    for taken in (pruned, tmp_path / "mine"):
        with pytest.raises(CheckpointError, match="not empty"):
            export(pruned, "exported", taken)
    assert {path.name: path.read_bytes() for path in pruned.iterdir()} == before
    nothing_but(tmp_path / "mine", "thesis")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "export.json").write_text("{}")
    (tmp_path / "old" / "stale").write_text("x")
    export(pruned, "exported", tmp_path / "old")
    nothing_but(tmp_path / "old", "export.json", "program.pt2", "checksums.json", "stale")  # stale may be anybody's


def test_no_folder_of_prunekit_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"model\.json"):
        export(tmp_path, "exported", tmp_path / "out")


def test_the_command(pruned, tmp_path, capsys):
    arguments = ["export", str(pruned), "--to", "exported", "--out", str(tmp_path / "out")]
    assert command(arguments) == 0
    shown = capsys.readouterr().out
    assert "greatest difference" in shown
    assert "program.pt2" in shown
    assert command([*arguments, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert max(found["difference"] for found in said["compared"]) <= 1e-4
    assert command(["export", str(pruned), "--to", "hf", "--out", str(tmp_path / "none")]) == 2
    assert "for this model: exported" in capsys.readouterr().err
    nothing_but(tmp_path, "out")


def test_what_is_compared():
    one = torch.tensor([1.0, -50.0])
    found = difference_of("y", one, one + torch.tensor([0.25, 0.0]))
    assert (found.difference, found.largest) == (0.25, 50.0)
    assert agreeing("y", one, one + 4e-3).difference == pytest.approx(4e-3, rel=1e-3)  # 1e-4 of the largest output
    with pytest.raises(ExportError, match=r"differs by 0\.25"):
        agreeing("y", one, one + torch.tensor([0.25, 0.0]))
    assert math.isnan(difference_of("y", one, one * math.nan).difference)
    with pytest.raises(ExportError, match="differs by nan"):
        agreeing("y", one, torch.tensor([1.0, math.nan]))
    with pytest.raises(ExportError, match=r"gives \(1, 2\), the pruned model \(2,\)"):
        difference_of("y", one, one[None])


def test_a_library_that_is_missing_is_named(monkeypatch):
    from prunekit.exports.requirements import optional

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r"pip install 'x\[onnx\]'"):
        optional("onnxruntime", "x[onnx]")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(
            "vit_tiny_patch16_224",
            {"img_size": 32, "patch_size": 8, "depth": 2, "num_classes": 5},
            marks=pytest.mark.sweep,
        ),
        ("test_resnet", {"num_classes": 5}),
    ],
)
def test_onnx_gives_what_the_model_gives_at_two_batch_sizes(name, options, tmp_path):
    torch.manual_seed(0)
    model = build(f"timm:{name}", plugins=[], **options).model
    result = prunekit.prune(model, torch.randn(1, 3, 32, 32) if "img_size" in options else None, ratio=0.5)
    folder = save(Bundle(model, result.plan, result.report, f"timm:{name}", options), tmp_path / "slim")
    done = export(folder, "onnx", tmp_path / "onnx")
    assert "model.onnx" in done.files
    assert {each.name for each in done.compared} == {f"model.onnx: output 0 at batch {batch}" for batch in (1, 3)}
    import onnx

    graph = onnx.load(tmp_path / "onnx" / "model.onnx")
    assert {each.domain for each in graph.opset_import} <= {"", "ai.onnx"}
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}


def test_what_onnx_cannot_follow_leaves_nothing(tmp_path):
    model = Decides()
    with pytest.raises(ExportError, match="cannot follow the model"):
        export(kept(tmp_path / "slim", model), "onnx", tmp_path / "onnx", model=Decides())
    assert not (tmp_path / "onnx").exists()
