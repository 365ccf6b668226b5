import json
from pathlib import Path

import numpy as np
import pytest
import torch
from prunekit_sam.data import Folder, GeneratedScenes, MaskedImage
from prunekit_sam.examination import compared, examine
from prunekit_sam.models import build_sam, nano
from prunekit_sam.promptable import CHUNK_CPU, Prompted, Trivial
from prunekit_sam.prompts import Prompts, ask, drawn, parsed
from prunekit_sam.scores import means
from safetensors.torch import load_file, save_file

from prunekit.cli.app import run
from prunekit.errors import InputError
from prunekit.plugins import Examination
from prunekit.samples import split_of

BSDS = Path(__file__).parents[4] / "shared" / "data" / "bsds500" / "val"
needs_bsds = pytest.mark.skipif(not BSDS.is_dir(), reason="needs shared/data/bsds500 beside the repository")
FIRST = 57  # of twelve names with all three splits among them
EVERY = parsed("point,box,points:3,multimask,multimask-own")


@pytest.fixture(scope="module")
def sam():
    return build_sam("nano")


def crowded(masks=44):
    """One image with so many annotations."""
    samples = list(GeneratedScenes(12, seed=3))
    one = samples[0]
    found = np.concatenate([s.masks for s in samples])[:masks]
    assert len(found) == masks
    points = np.concatenate([s.points for s in samples])[:masks]
    boxes = np.concatenate([s.boxes for s in samples])[:masks]
    return MaskedImage("crowded", one.image, found, points, boxes)


def annotated_folder(path, count=12):
    """An SA-1B folder of generated scenes."""
    from PIL import Image
    from pycocotools import mask as coco

    for index, sample in enumerate(GeneratedScenes(count, seed=9)):
        Image.fromarray(sample.image).save(path / f"sa_{index + FIRST}.png")
        notes = []
        for mask, point, box in zip(sample.masks, sample.points, sample.boxes, strict=True):
            rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
            x0, y0, x1, y1 = box.tolist()
            notes.append(
                {
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "point_coords": [point.tolist()],
                }
            )
        (path / f"sa_{index + FIRST}.json").write_text(json.dumps({"annotations": notes}))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return annotated_folder(tmp_path_factory.mktemp("scenes"))


def test_the_encoder_runs_once_an_image_for_44_masks_and_every_prompt(sam):
    encoded, decoded = [], []
    hooks = [
        sam.image_encoder.register_forward_hook(lambda *_: encoded.append(1)),
        sam.mask_decoder.register_forward_hook(lambda *_: decoded.append(1)),
    ]
    marks, _ = examine(Prompted(sam), [crowded()], EVERY)
    for hook in hooks:
        hook.remove()
    assert (len(encoded), len(decoded)) == (1, len(EVERY) * -(-44 // CHUNK_CPU))
    assert [len(found[0].iou) for found in marks.values()] == [44] * len(EVERY)


def test_chunks_do_not_change_the_answers(sam, monkeypatch):
    sample = crowded(10)
    asked = [ask(protocol, sample) for protocol in EVERY]
    monkeypatch.setattr("prunekit_sam.promptable.CHUNK_CPU", 64)
    whole = Prompted(sam).predict(sample.image, asked)
    monkeypatch.setattr("prunekit_sam.promptable.CHUNK_CPU", 3)
    for one, other in zip(whole, Prompted(sam).predict(sample.image, asked), strict=True):
        assert one.shape == other.shape
        assert (one != other).mean() < 1e-4  # a pixel at the threshold may flip with the batch


def test_no_prompts_give_no_masks(sam):
    image = crowded(1).image
    none = Prompts(np.zeros((0, 1, 2), np.float32), None)
    assert Prompted(sam).predict(image, [none])[0].shape == (0, 1, *image.shape[:2])


def test_multimask_against_segment_anythings_own_predictor(sam):
    from segment_anything import SamPredictor

    sample = crowded(3)
    answer = Prompted(sam).predict(sample.image, [ask(parsed("multimask")[0], sample)])[0]
    predictor = SamPredictor(sam)
    predictor.set_image(sample.image)
    for index, point in enumerate(sample.points):
        masks, quality, _ = predictor.predict(point[None], np.ones(1), multimask_output=True)
        assert (answer[index] != masks[np.argsort(-quality)]).mean() < 1e-3


def test_the_best_of_multimask_is_no_worse_than_the_models_own_choice(sam):
    marks, _ = examine(Prompted(sam), list(GeneratedScenes(3, seed=4)), EVERY)
    best, own = (np.concatenate([m.iou for m in marks[name]]) for name in ("multimask", "multimask-own"))
    assert (best >= own).all()
    assert (best > own).any()


def test_points_are_drawn_inside_and_again_with_the_seed():
    sample = crowded(8)
    points = drawn("a", sample.masks, 5, 0).astype(int)
    assert points.shape == (8, 5, 2)
    for mask, inside in zip(sample.masks, points, strict=True):
        assert mask[inside[:, 1], inside[:, 0]].all()
        assert len({tuple(point) for point in inside}) == 5
    assert np.array_equal(points, drawn("a", sample.masks, 5, 0))
    assert np.array_equal(points[:4], drawn("a", sample.masks[:4], 5, 0))
    assert not np.array_equal(points, drawn("a", sample.masks, 5, 1))
    assert not np.array_equal(points, drawn("b", sample.masks, 5, 0))


def test_a_mask_smaller_than_the_number_of_points():
    mask = np.zeros((1, 4, 6), bool)
    mask[0, 2, 5] = True
    assert drawn("a", mask, 3, 0).tolist() == [[[5, 2]] * 3]


@pytest.mark.parametrize("text", ["circle", "points", "points:0", "points:x", "box:2", ""])
def test_prompts_that_are_not_known(text):
    with pytest.raises(InputError, match="unknown prompt"):
        parsed(text)


def test_the_split_chooses_images(folder):
    names = {s: [sample.name for sample in Folder(folder, part=s)] for s in ("all", "train", "val", "test")}
    assert sorted(names["train"] + names["val"] + names["test"]) == sorted(names["all"])
    assert all(split_of(name) == split for split in ("train", "val", "test") for name in names[split])
    assert all(names.values())
    assert len(names["all"]) == 12
    done = compared({}, Examination(folder, "box", "test"), lambda name, done, total: None)
    assert done.counts["images"] == len(names["test"]) == 2


def test_every_model_is_built_in_its_turn_and_trivial_answers_are_a_row(folder):
    built = []

    def make(name):
        built.append(name)
        torch.manual_seed(0)
        return nano() if name == "random" else build_sam("nano")

    done = compared(
        {name: (lambda name=name: make(name)) for name in ("nano", "random")},
        Examination(folder, "point,box", images=4),
        lambda name, done, total: built.append((name, done)) if done == total else None,
    )
    assert built == ["nano", ("nano", 4), "random", ("random", 4), ("trivial", 4)]
    assert done.counts["images"] == 4
    assert done.rows["nano"]["point"]["miou"] > done.rows["trivial"]["point"]["miou"]
    assert done.rows["nano"]["box"]["miou"] > done.rows["random"]["box"]["miou"]


def test_the_command(folder, tmp_path, capsys):
    out = tmp_path / "deep" / "report.json"
    asked = ["--data", str(folder), "--images", "2", "--prompts", "point,points:2", "--out", str(out)]
    assert run(["eval", "sam:nano", *asked, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(out.read_text())
    assert set(report["rows"]) == {"sam:nano", "trivial"}
    assert 0 < report["rows"]["sam:nano"]["points:2"]["boundary_iou"] < 1
    assert report["images"] == 2


def test_the_table(folder, capsys):
    assert run(["eval", "sam:nano", "--data", str(folder), "--images", "1", "--prompts", "box"]) == 0
    shown = capsys.readouterr().out
    assert "sam:nano" in shown
    assert "trivial" in shown


SHORT = {"train_images": 2, "val_images": 1, "images": 2, "epochs": 1, "align_epochs": 1, "distill": "false"}
QUICK = [word for name, value in SHORT.items() for word in ("--set", f"{name}={value}")]


def test_a_pruned_folder_beside_its_original(folder, tmp_path, capsys):
    kept = tmp_path / "half"
    few = [word for one in ("images=2", "val_images=2", "latency=false") for word in ("--set", one)]
    assert run(["prune", "sam:nano", "--scorer", "magnitude", "--out", str(kept), *few, "--json"]) == 0
    capsys.readouterr()
    assert run(["eval", str(kept), "sam:nano", "--data", str(folder), "--images", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert list(rows) == [str(kept), "sam:nano", "trivial"]
    assert rows[str(kept)]["point"]["miou"] < rows["sam:nano"]["point"]["miou"]


def test_an_exported_folder_scores_like_the_folder_that_it_was_exported_from(folder, tmp_path, capsys):
    pytest.importorskip("transformers")
    kept, out = tmp_path / "half", tmp_path / "hf"
    assert run(["prune", "sam:nano", "--recipe", "slimsam-uniform", "--out", str(kept), *QUICK, "--json"]) == 0
    assert run(["export", str(kept), "--to", "hf", "--out", str(out), "--json"]) == 0
    capsys.readouterr()
    assert run(["eval", str(kept), str(out), "--data", str(folder), "--images", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[str(kept)]["box"]["miou"] > 0
    for prompt, figures in rows[str(kept)].items():
        assert rows[str(out)][prompt]["miou"] == pytest.approx(figures["miou"], abs=2e-3)  # pixels at the threshold
    weights = out / "model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor for name, tensor in tensors.items() if "iou_token" not in name}, weights, {"format": "pt"})
    assert run(["eval", str(out), "--data", str(folder)]) == 2
    assert "does not fit its config" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["timm:deit_tiny_patch16_224"], "can neither be prompted nor reads text"),
        (["sam:nono"], "sam:nano"),
        (["sam:nano", "--split", "dev"], "unknown split"),
        (["sam:nano", "--prompts", "circle"], "unknown prompt"),
        (["sam:nano", "--images", "0"], "out of range"),
        (["sam:nano", "--out", "."], "is a folder"),
        (["sam:nano", "sam:vit_b", "--checkpoint", "x.pth"], "unclear"),
        (["sam:nano", "--checkpoint", "none.pth"], "no checkpoint"),
    ],
)
def test_what_is_refused(folder, arguments, said, capsys):
    assert run(["eval", *arguments, "--data", str(folder)]) == 2
    assert said in capsys.readouterr().err


@needs_bsds
def test_trivial_answers_on_photographs_have_the_figures_of_the_data_sets_readme():
    marks, _ = examine(Trivial(), Folder(BSDS), parsed("point,box"), limit=25, boundary=False)
    # over all 4,409 masks: 0.545 and 0.235
    assert means(marks["box"])["mask_iou"] == pytest.approx(0.545, abs=0.02)
    assert means(marks["point"])["mask_iou"] == pytest.approx(0.235, abs=0.02)
