"""Examples for the teacher of benchmarks/teacher: the masks lie where the pixels do, and every number is itself."""

import numpy as np
import pytest
import torch
from PIL import Image
from prunekit_sam.training import TeacherSettings

from benchmarks.teacher.photos import PAD, SHARES, SIDE, Photo, PhotoExamples

SETTINGS = TeacherSettings(queries=5, prompts=4)


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """Photos that are green where their only segment is, and blue elsewhere; red photos to paste over."""
    photos = []
    for shift in (0, 40):
        mask = np.zeros((120, 200), bool)
        mask[30:70, 20 + shift : 90 + shift] = True
        image = np.where(mask[..., None], np.uint8([0, 200, 0]), np.uint8([0, 0, 200])).astype(np.uint8)
        photos.append(Photo(image, np.packbits(mask.reshape(1, -1), axis=1)))
    Image.new("RGB", (160, 130), (200, 0, 0)).save(tmp_path / "red.png")

    def of(kind):
        monkeypatch.setattr("benchmarks.teacher.photos.SHARES", {kind: 1.0})
        return PhotoExamples(photos, [tmp_path / "red.png"], SETTINGS, 100, 12)

    return of


@pytest.mark.parametrize("kind", ["photo", "pasted"])
def test_segments_are_where_their_pixels_are(examples, kind):
    for index in range(12):
        one = examples(kind)[index]
        red, green, blue = one["pixels"].float()
        seen = torch.nn.functional.avg_pool2d(((green > red) & (green > blue))[None].float(), 4)[0]
        soft = one["soft"].sum(0)
        overlap = torch.minimum(seen, soft).sum() / torch.maximum(seen, soft).sum()
        assert overlap > 0.85, (index, overlap)
        for (x, y), asked in zip(one["queries"], one["asked"], strict=True):
            assert one["soft"][asked, int(y) // 4, int(x) // 4] > 0


@pytest.mark.parametrize("kind", SHARES)
def test_an_example_depends_on_its_number_alone(examples, kind):
    data = examples(kind)
    data[3]
    first, again, other = data[5], examples(kind)[5], data[6]
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert not torch.equal(first["pixels"], other["pixels"])
    assert first["pixels"].shape == (3, SIDE, SIDE)


def test_padding_is_the_mean_that_normalisation_makes_nothing(examples):
    padded = [one["pixels"] for one in (examples("photo")[index] for index in range(12))]
    corners = [tuple(pixels[:, -1, -1].tolist()) for pixels in padded]
    assert PAD in corners
