"""SAM, SAM 2 and SAM 3 of transformers by ``hf:FOLDER``: prompted as their processors do, slimmed, and home again."""

import numpy as np
import pytest
import torch
from prunekit_sam.data import GeneratedScenes
from prunekit_sam.evaluation import evaluate
from prunekit_sam.examination import prompted_by
from prunekit_sam.promptable_hf import decode_hf_once, family_of
from prunekit_sam.prompts import ask, parsed
from torch.utils._pytree import tree_leaves

import prunekit
from prunekit.errors import InputError
from prunekit.registry import build
from prunekit.registry.lookup import examiner_of

transformers = pytest.importorskip("transformers")

from support.hf_sams import MAKERS  # noqa: E402

PROCESSORS = {
    "sam": lambda: transformers.SamProcessor(
        transformers.SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    ),
    "sam2": lambda: transformers.Sam2Processor(
        transformers.Sam2ImageProcessor(size={"height": 64, "width": 64}), target_size=64
    ),
    "sam3": lambda: transformers.Sam3TrackerProcessor(
        transformers.Sam3ImageProcessor(size={"height": 56, "width": 56}), target_size=56
    ),
}


@pytest.fixture(scope="module", params=MAKERS)
def saved(request, tmp_path_factory):
    """(name, model, folder): norms that are not ones and weights large enough for masks to differ."""
    torch.manual_seed(0)
    model = MAKERS[request.param]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return request.param, model, folder


def test_masks_are_those_of_the_librarys_processor(saved):
    name, model, _ = saved
    processor = PROCESSORS[name]()
    scene = GeneratedScenes(1, seed=3, size=90)[0]
    image = np.ascontiguousarray(scene.image[:60])
    points = [[[float(x), min(float(y), 59.0)]] for x, y in scene.points]
    given = processor(images=image, input_points=[points], return_tensors="pt")
    with torch.no_grad():
        found = model(
            pixel_values=given["pixel_values"],
            input_points=given["input_points"].float(),
            input_labels=torch.ones(given["input_points"].shape[:3], dtype=torch.int),
            multimask_output=False,
        )
    sizes = {"reshaped_input_sizes": given["reshaped_input_sizes"]} if "reshaped_input_sizes" in given else {}
    wanted = processor.post_process_masks(found.pred_masks, given["original_sizes"], **sizes)[0][:, 0].numpy() > 0
    moved = type(scene)(scene.name, image, None, np.array(points, np.float32)[:, 0], scene.boxes)
    asked = ask(parsed("point")[0], moved)
    (answer,) = prompted_by(model).predict(image, [asked])
    assert wanted.any()
    assert not wanted.all()
    assert (answer[:, 0] != wanted).mean() < 0.02  # the processors resize on tensors, a pixel at the threshold may flip


def test_the_plug_in_speaks_for_what_another_built(saved):
    _, model, folder = saved
    built = build(f"hf:{folder}")
    assert (built.part, built.plugin.name, built.entry.uniform) == ("vision_encoder", "sam", True)
    assert type(built.model) is type(model)
    assert examiner_of(f"hf:{folder}") is built.plugin.examiners["masks"]
    samples = GeneratedScenes(1, seed=4, size=64)
    assert evaluate(built.model, samples, "box").miou == evaluate(model, samples, "box").miou
    encoder = []
    built.model.vision_encoder.register_forward_hook(lambda *_: encoder.append(1))
    decode_hf_once(built.model)
    assert not encoder


def test_a_pruned_encoder_goes_home(saved, tmp_path):
    _, _, folder = saved
    model = build(f"hf:{folder}").model
    pixels = torch.randn(1, 3, *[prompted_by(model).side] * 2)
    result = prunekit.prune(
        model.vision_encoder, {"pixel_values": pixels}, ratio=0.5, scorer="random", roles=["mlp.hidden"], uniform=True
    )
    assert result.report.params["after"] < 0.95 * result.report.params["before"]
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        mine, theirs = (tree_leaves(dict(m.vision_encoder(pixels))) for m in (model, again))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_other_models_take_no_prompts():
    assert family_of(torch.nn.Linear(1, 1)) is None
    with pytest.raises(InputError, match="Linear, which takes no prompts"):
        prompted_by(torch.nn.Linear(1, 1))
