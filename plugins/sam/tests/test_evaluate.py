import numpy as np
import pytest
import torch
from prunekit_sam.data import GeneratedScenes, MaskedImage
from prunekit_sam.evaluation import disc_miou, encode, evaluate, filled_box_miou, iou, predict
from prunekit_sam.models import build_sam
from segment_anything import SamPredictor

from prunekit.errors import DataError, InputError


@pytest.fixture(scope="module")
def sam():
    return build_sam("nano")


@pytest.fixture(scope="module")
def held():
    return list(GeneratedScenes(8, seed=1_000_003))


def test_iou_of_empty_masks():
    empty, full = np.zeros((1, 2, 2), bool), np.ones((1, 2, 2), bool)
    assert iou(empty, empty) == 1
    assert iou(empty, full) == 0
    assert iou(full, full) == 1


def test_each_image_is_encoded_once(sam, held):
    calls = []
    hook = sam.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    seen = []
    result = evaluate(sam, held, "point", limit=3, progress=lambda done, total: seen.append((done, total)))
    hook.remove()
    assert len(calls) == result.images == len(result.per_image) == 3
    assert result.masks == sum(len(sample.masks) for sample in held[:3])
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("size", [48, 150])
@pytest.mark.parametrize("prompt", ["point", "box"])
def test_against_segment_anythings_own_predictor_one_prompt_at_a_time(sam, prompt, size):
    data = GeneratedScenes(2, seed=5, size=size)
    predictor = SamPredictor(sam)
    expected = []
    for sample in data:
        predictor.set_image(sample.image[: size // 2 * 2 - 8])
        found = []
        for mask, point, box in zip(sample.masks, sample.points, sample.boxes, strict=True):
            ask = {"point_coords": point[None], "point_labels": np.ones(1)} if prompt == "point" else {"box": box}
            answer = predictor.predict(**ask, multimask_output=False)[0][0]
            mask = mask[: size // 2 * 2 - 8]
            if mask.any():
                found.append((answer & mask).sum() / (answer | mask).sum())
        expected.append(np.mean(found))
    cut = [
        MaskedImage(s.name, s.image[: size // 2 * 2 - 8], s.masks[:, : size // 2 * 2 - 8], s.points, s.boxes)
        for s in data
    ]
    assert evaluate(sam, cut, prompt).per_image == pytest.approx(
        expected, abs=3e-4
    )  # a pixel at the threshold may flip with the batch


def test_nano_beats_both_baselines(sam, held):
    assert evaluate(sam, held, "point").miou > disc_miou(held) + 0.1
    assert evaluate(sam, held, "box").miou > filled_box_miou(held) + 0.05


def test_baselines_by_hand():
    masks = np.zeros((1, 10, 10), bool)
    masks[0, 2:6, 2:4] = masks[0, 2:4, 2:6] = True  # an L: 12 of the 16 pixels of its box
    sample = MaskedImage("l", np.zeros((10, 10, 3), np.uint8), masks, np.float32([[3, 3]]), np.float32([[2, 2, 6, 6]]))
    assert filled_box_miou([sample]) == pytest.approx(12 / 16)
    assert disc_miou([sample], fraction=0.01) == pytest.approx(1 / 12)


def test_empty_annotations_are_counted_and_left_out(sam, held):
    sample = held[0]
    more = MaskedImage(
        sample.name,
        sample.image,
        np.concatenate([sample.masks, np.zeros_like(sample.masks[:1])]),
        np.concatenate([sample.points, sample.points[:1]]),
        np.concatenate([sample.boxes, sample.boxes[:1]]),
    )
    plain, with_empty = evaluate(sam, [sample]), evaluate(sam, [more])
    assert with_empty.miou == pytest.approx(plain.miou)
    assert (plain.skipped, with_empty.skipped) == (0, 1)


def test_what_cannot_be_scored(sam, held):
    with pytest.raises(InputError, match="circle"):
        evaluate(sam, held, "circle")
    with pytest.raises(DataError, match="nothing to score"):
        evaluate(sam, [])
    bare = MaskedImage("bare", held[0].image, None, np.zeros((0, 2), np.float32), np.zeros((0, 4), np.float32))
    with pytest.raises(DataError, match="bare comes without masks"):
        evaluate(sam, [bare])


def test_the_mode_is_put_back(held):
    model = build_sam("nano").train()
    evaluate(model, held, limit=1)
    assert model.training


def test_shapes(sam, held):
    with torch.no_grad():
        embedding, resized = encode(sam, held[0].image[:64])
    assert embedding.shape == (1, 128, 16, 16)
    assert resized == (64, 128)
    assert predict(sam, held[0], "box").shape == held[0].masks.shape
