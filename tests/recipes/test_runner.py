"""The engine, a recipe and a model that no plug-in speaks for, end to end."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from PIL import Image

import prunekit
from prunekit.errors import InputError, RecipeError
from prunekit.plugins import ModelEntry
from prunekit.recipes import COMMON, Distil, Evaluate, Falling, Prune, Recipe, Term, override
from prunekit.registry import build
from prunekit.runs import run
from prunekit.runs.image_data import images
from prunekit.samples import split_of
from prunekit.scorers import DisturbedTaylor, Magnitude

RECIPE = Recipe(
    "two cuts",
    "",
    (
        Evaluate("before", "before"),
        Prune("embedding", (("embedding",),), {"embedding": "heads"}),
        Distil("bottleneck", (Term("b", roles=("attention.head_dim", "mlp.hidden"), aligning=True), Term("output"))),
        Prune("bottleneck", (("attention.head_dim",), ("mlp.hidden",)), {"mlp.hidden": "heads"}),
        Distil(
            "embedding", (Term("e", roles=("embedding",), teacher="previous", aligning=True), Term("output")), Falling()
        ),
        Evaluate("after", "after"),
    ),
    {**COMMON, "images": 2, "train_images": 2, "val_images": 2, "epochs": 3, "align_epochs": 2, "latency": False},
)


def built():
    torch.manual_seed(0)
    options = {"img_size": 32, "patch_size": 8, "depth": 2, "num_classes": 5, "embed_dim": 48, "num_heads": 3}
    return build("timm:vit_tiny_patch16_224", plugins=[], **options)


def test_every_stage_runs_and_one_plan_says_it_all(tmp_path):
    model = built()
    original = copy.deepcopy(model.model)
    events = []
    result = run(model, RECIPE, Magnitude(), ratio=0.5, listen=events.append)
    assert [stage["title"] for stage in result.report["stages"]] == [stage.title for stage in RECIPE.stages]
    assert {event.title for event in events} == {stage.title for stage in RECIPE.stages if stage.title != "none"}
    roles = {width.role: width.after for width in result.plan.widths}
    assert roles["embedding"] == 24
    assert roles["attention.head_dim"] == 8
    assert roles["mlp.hidden"] == 96
    prunekit.apply(original, result.plan)
    assert {n: p.shape for n, p in original.state_dict().items()} == {
        n: p.shape for n, p in result.model.state_dict().items()
    }
    folder = prunekit.save(result, tmp_path / "out")
    again, x = prunekit.load(folder), torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(again(x), result.model(x), rtol=0, atol=0)
    report = result.report
    assert report["params"]["after"] == sum(p.numel() for p in again.parameters())
    assert report["metric"]["name"] == "output_cosine"
    assert report["metric"]["before"] == pytest.approx(1)
    assert report["verify"]["shapes"] == "passed"
    assert {"macs", "layer_macs", "whole_params", "whole_macs", "whole_layer_macs"} <= set(report)


def test_the_plug_ins_lean_context_is_there_to_score_train_and_evaluate_and_nowhere_else():
    inside, passes = [], []

    @contextmanager
    def lean(model):
        inside.append(model)
        try:
            yield
        finally:
            inside.remove(model)

    def note(module, args, output):
        passes.append((output.is_meta, output.requires_grad, bool(inside)))

    model = built()
    model.model.norm.register_forward_hook(note)
    entry = ModelEntry(lambda checkpoint: model.model, lean=lean)
    quick = {"epochs": 1, "verify": "shapes"}
    run(replace(model, entry=entry), override(RECIPE, quick), DisturbedTaylor(), ratio=0.5)
    real = [(graded, found) for is_meta, graded, found in passes if not is_meta]
    assert sum(graded for graded, _ in real) == 2 * 2 + 2 * 2  # scored and trained, two samples each time
    assert all(found for _, found in real)
    traced = [found for is_meta, graded, found in passes if is_meta and not graded]
    assert traced
    assert not any(traced)
    assert not inside


def test_without_distillation_only_the_cuts_run():
    result = run(built(), override(RECIPE, {"distill": False}), Magnitude(), ratio=0.5)
    assert [stage["title"] for stage in result.report["stages"]] == ["before", "embedding", "bottleneck", "after"]


@pytest.mark.parametrize(
    ("verify", "memory", "said"),
    [
        ("shapes", "1GB", "not run: not asked for"),
        ("auto", 1, "not run: too large, --set verify=full asks for it"),
        ("auto", "1GB", "passed"),
    ],
)
def test_why_symmetry_was_not_checked_is_said(tmp_path, verify, memory, said):
    with prunekit.offloaded(tmp_path, memory=memory):
        result = run(built(), override(RECIPE, {"distill": False, "verify": verify}), Magnitude(), ratio=0.5)
    assert result.report["verify"]["symmetry"] == said


@pytest.mark.parametrize("ratio", [1, -0.1, float("nan"), True])
def test_a_ratio_out_of_range_is_refused(ratio):
    with pytest.raises(InputError, match="ratio"):
        run(built(), RECIPE, Magnitude(), ratio=ratio)


def test_a_role_that_the_model_lacks_is_named():
    with pytest.raises(RecipeError, match="role embedding"):
        run(build("torchvision:squeezenet1_1", plugins=[]), RECIPE, Magnitude())


def test_one_folder_of_photographs_is_trained_and_validated_on_its_own_parts(tmp_path, caplog):
    names = [f"{number}.png" for number in range(60)]
    for name in names:  # whatever is read and broken is named in the report
        if split_of(name) == "test":
            (tmp_path / name).write_bytes(b"no image")
        else:
            Image.new("RGB", (32, 32), (len(name) * 40, 9, 9)).save(tmp_path / name)
    quick = {"train_images": 2, "val_images": 2, "epochs": 1}
    run(built(), override(RECIPE, quick), Magnitude(), data=tmp_path)
    assert "metrics are of generated samples" in caplog.text
    caplog.clear()
    parts = {part: sum(split_of(name) == part for name in names) for part in ("train", "val", "test")}
    assert all(parts.values())
    model, recipe = built(), override(RECIPE, {"split": True, "train_images": 99, "val_images": 99, "epochs": 1})
    result = run(model, recipe, Magnitude(), data=tmp_path)
    assert result.report["skipped"]["count"] == 0
    assert len(result.val) == parts["val"]
    assert "generated images" not in caplog.text
    assert len(images(model.model, tmp_path, "train", None, 0, "train")) == parts["train"]
    with pytest.raises(RecipeError, match="one folder"):
        run(built(), recipe, Magnitude(), data=tmp_path, val=tmp_path)


@pytest.mark.parametrize(("epochs", "told"), [(0, False), (1, True), (2, False)])
def test_a_weight_that_falls_to_zero_in_its_only_epoch_is_told(epochs, told, caplog):
    run(built(), override(RECIPE, {"epochs": 2, "align_epochs": epochs}), Magnitude(), ratio=0.5)
    warned = [r.getMessage() for r in caplog.records if "count nothing" in r.getMessage()]
    assert bool(warned) is told
    assert all(words.startswith("embedding: e count nothing") for words in warned)
