"""The slimsam recipe on SAM: published widths and counts, terms that teach, a kept model that loads."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from PIL import Image
from prunekit_sam import models
from prunekit_sam.plugin import plugin, sa1b
from prunekit_sam.recipe import SLIMSAM

import prunekit
from prunekit.cli.app import run as command
from prunekit.recipes import COMMON, Distil, Prune
from prunekit.registry import Built
from prunekit.runs.distillation import term_losses
from prunekit.runs.prune_stage import Asked, cut, structure_of
from prunekit.runs.reporting import count_rest
from prunekit.samples import Samples
from prunekit.scorers import Magnitude, Random

LOCAL = {**COMMON, "ranking": "local"}


def cut_in_turn(part, samples, ratio, scorer, settings=LOCAL):
    """The recipe's cuts without what lies between them; the plans."""
    plans = []
    for stage in SLIMSAM.stages:
        if isinstance(stage, Prune):
            structure = structure_of(part, samples)
            plans.append(
                cut(part, stage, structure, samples, Asked.of(settings, scorer=scorer, ratio=ratio), lambda *_: None)[0]
            )
    return plans


@pytest.mark.parametrize(
    ("ratio", "embedding", "mlp", "head", "encoder", "whole", "layer", "true"),
    [(0.5, 384, 1536, 32, 23.897, 27.962, 94.87, 153.5), (0.77, 168, 696, 14, 5.659, 9.724, 20.93, 46.6)],
)
def test_published_widths_and_counts(ratio, embedding, mlp, head, encoder, whole, layer, true):
    with torch.device("meta"):
        sam = models.sam_model_registry["vit_b"]()
    part = sam.image_encoder
    image = torch.zeros(1, 3, 1024, 1024, device="meta")
    samples = Samples([image], lambda items: items[0])
    cut_in_turn(part, samples, ratio, Random())
    for block in part.blocks:
        assert block.norm1.weight.shape == (embedding,)
        assert block.attn.qkv.weight.shape == (3 * 12 * head, embedding)
        assert block.attn.rel_pos_h.shape[1] == head
        assert block.mlp.lin1.weight.shape == (mlp, embedding)
    cost = structure_of(part, samples).cost()
    assert cost.params / 1e6 == pytest.approx(encoder, abs=6e-4)
    assert sum(p.numel() for p in sam.parameters()) / 1e6 == pytest.approx(whole, abs=6e-4)
    # the counter behind the published figures adds up to 0.2 % for layers that are neither convolution nor linear
    assert cost.layer_macs / 1e9 == pytest.approx(layer, rel=2.5e-3)
    assert cost.macs / 1e9 == pytest.approx(true, rel=1e-3)


def test_what_lies_outside_the_encoder_is_counted():
    sam = models.build_sam("nano")
    cost = count_rest(Built(sam, "sam:nano", {}, plugin.models["nano"], plugin), sam.image_encoder)
    outside = [p for n, p in sam.named_parameters() if not n.startswith("image_encoder")]
    assert cost.params == sum(p.numel() for p in outside)
    assert 0 < cost.layer_macs < cost.macs


@pytest.mark.parametrize("number", [0, 1])
def test_each_term_of_both_alignments_teaches_local_and_global_blocks(number):
    torch.manual_seed(0)
    sam = models.build_sam("nano")
    samples = sa1b(sam, None, "train", 2, 0)
    student, original = sam.image_encoder, copy.deepcopy(sam.image_encoder)
    previous = original
    cuts = [stage for stage in SLIMSAM.stages if isinstance(stage, Prune)]
    for stage in cuts[: number + 1]:
        previous = copy.deepcopy(student)
        structure = structure_of(student, samples)
        cut(student, stage, structure, samples, Asked.of(LOCAL, scorer=Magnitude(), ratio=0.5), lambda *_: None)
    stage = [stage for stage in SLIMSAM.stages if isinstance(stage, Distil)][number]
    structure = structure_of(student, samples)
    taps = {term.name: structure.taps(term.roles) if term.roles else () for term in stage.terms}
    with torch.no_grad():
        for block in student.blocks:
            block.norm1.weight += 0.1 * torch.randn_like(block.norm1.weight)
    teachers = {"original": original, "previous": previous}
    losses = term_losses(student, teachers, stage.terms, taps, 0.5, samples.batch([0, 1]))
    assert set(losses) == {term.name for term in stage.terms}
    for name, loss in losses.items():
        assert float(loss.detach()) > 0, name
        student.zero_grad()
        loss.backward(retain_graph=True)
        # windowed blocks 0 and 2, global blocks 1 and 3
        for index in range(3):
            assert student.blocks[index].attn.qkv.weight.grad.abs().sum() > 0, (name, index)
    if number == 0:
        modules = {tap.module for tap in taps["bottleneck"]}
        assert {f"blocks.{i}.attn.qkv" for i in range(4)} | {f"blocks.{i}.mlp.lin1" for i in range(4)} == modules


def test_the_command_slims_nano_and_keeps_it(tmp_path, capsys):
    fast = ["images=2", "train_images=4", "val_images=2", "epochs=2", "align_epochs=1", "latency=false"]
    settings = [word for pair in fast for word in ("--set", pair)]
    code = command(["prune", "--recipe", "slimsam", "--out", str(tmp_path / "out"), "--json", *settings])
    said = capsys.readouterr()
    assert code == 0, said.err
    report = json.loads(said.out)
    assert report["metric"]["name"] == "point_miou"
    assert set(report["metrics"]) == {"point_miou", "box_miou"}
    assert len(report["stages"]) == len(SLIMSAM.stages)
    assert report["whole_params"]["after"] - report["params"]["after"] == (
        report["whole_params"]["before"] - report["params"]["before"]
    )
    with Image.open(tmp_path / "out" / "masks.png") as picture:
        assert picture.width > 400
    sam = prunekit.load(tmp_path / "out")
    assert sam.image_encoder(torch.zeros(1, 3, 128, 128)).shape == (1, 128, 16, 16)


@pytest.mark.parametrize("fault", ["truncated", "keys", "annotations", "half", "empty"])
def test_bad_input_is_refused_with_one_message(tmp_path, capsys, fault):
    folder, arguments = tmp_path / "photos", []
    folder.mkdir()
    Image.new("RGB", (40, 30)).save(folder / "a.jpg")
    (folder / "a.json").write_text('{"annotations": []}')
    if fault in ("truncated", "keys"):
        path = tmp_path / "w.pth"
        torch.save({"x": torch.zeros(500)}, path)
        if fault == "truncated":
            path.write_bytes(path.read_bytes()[:700])
        arguments = ["--checkpoint", str(path)]
    elif fault == "half":
        (folder / "a.json").unlink()
    elif fault == "empty":
        (folder / "a.json").unlink()
        (folder / "a.jpg").unlink()
    if not arguments:
        arguments = ["--val", str(folder), "--set", "images=2"]
    code = command(["prune", "--recipe", "slimsam", *arguments, "--out", str(tmp_path / "out")])
    said = capsys.readouterr()
    assert code == 2
    assert said.err.count("prunekit: ") == 1
    assert not (tmp_path / "out").exists()
