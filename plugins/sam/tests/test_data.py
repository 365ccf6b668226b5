import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prunekit_sam.data import Folder, decode_rle
from prunekit_sam.scenes import bounding_box, point_inside, scene

from prunekit.errors import DataError

SHARED = Path(__file__).parents[4] / "shared"


def rle(mask):
    """Uncompressed COCO RLE: column by column, starting with the count of zeros."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


def write_pair(folder, name="a", size=48, seed=0):
    """One scene as NAME.png and NAME.json in the SA-1B layout; returns the scene."""
    made = scene(seed, 0, size)
    Image.fromarray(made.image).save(folder / f"{name}.png")
    notes = []
    for mask in made.masks:
        x0, y0, x1, y1 = bounding_box(mask)
        notes.append(
            {
                "segmentation": rle(mask),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": int(mask.sum()),
                "point_coords": [list(point_inside(mask))],
            }
        )
    (folder / f"{name}.json").write_text(json.dumps({"annotations": notes}))
    return made


def test_a_folder_gives_back_what_was_written(tmp_path):
    made = write_pair(tmp_path)
    (sample,) = Folder(tmp_path)
    assert sample.name == "a"
    np.testing.assert_array_equal(sample.image, made.image)
    np.testing.assert_array_equal(sample.masks, made.masks)
    for mask, (x, y), (x0, y0, x1, y1) in zip(made.masks, sample.points, sample.boxes, strict=True):
        assert mask[int(y), int(x)]
        assert mask[int(y0) : int(y1), int(x0) : int(x1)].sum() == mask.sum()


def test_images_alone_are_enough_without_masks(tmp_path):
    write_pair(tmp_path)
    (tmp_path / "a.json").unlink()
    (sample,) = Folder(tmp_path, masks=False)
    assert sample.masks is None
    assert sample.points.shape == (0, 2)


@pytest.mark.parametrize("lost", ["a.png", "a.json"])
def test_a_missing_half_is_named(tmp_path, lost):
    write_pair(tmp_path, "a")
    write_pair(tmp_path, "b")
    (tmp_path / lost).unlink()
    left = "a.json" if lost == "a.png" else "a.png"
    found = Folder(tmp_path)
    assert [sample.name for sample in found] == ["b"]
    assert [skipped.name for skipped in found.skipped] == [str(tmp_path / left)]
    (tmp_path / "b.png").unlink()
    (tmp_path / "b.json").unlink()
    with pytest.raises(DataError, match=r"other half|no images"):
        Folder(tmp_path)


def test_no_folder_and_no_images(tmp_path):
    with pytest.raises(DataError, match="no images in"):
        Folder(tmp_path)
    with pytest.raises(DataError, match=r"no folder at .*nowhere"):
        Folder(tmp_path / "nowhere")


def test_a_truncated_image_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "t.jpg")
    whole = (tmp_path / "t.jpg").read_bytes()
    (tmp_path / "t.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cannot read the image .*t\.jpg"):
        Folder(tmp_path, masks=False)[0]


def _without(key):
    def change(notes):
        del notes["annotations"][0][key]

    return change


def _short_rle(notes):
    notes["annotations"][0]["segmentation"]["counts"] = [5, 5]


def _rle_of_another_size(notes):
    for note in notes["annotations"]:
        note["segmentation"] = rle(np.ones((5, 5), bool))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda notes: notes.clear(), "no 'annotations'"),
        (lambda notes: notes["annotations"].clear(), "no annotations"),
        (_without("segmentation"), "no 'segmentation'"),
        (_without("point_coords"), "no 'point_coords'"),
        (_short_rle, "broken RLE"),
        (_rle_of_another_size, "a mask of (5, 5)"),
    ],
)
def test_unusable_annotations_name_their_file(tmp_path, change, reason):
    write_pair(tmp_path)
    notes = json.loads((tmp_path / "a.json").read_text())
    change(notes)
    (tmp_path / "a.json").write_text(json.dumps(notes))
    with pytest.raises(DataError, match=r"a\.json") as caught:
        Folder(tmp_path)[0]
    assert reason in str(caught.value)


def test_json_that_is_not_json(tmp_path):
    write_pair(tmp_path)
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.json"):
        Folder(tmp_path)[0]


def test_a_mask_of_another_size_is_refused_before_it_is_drawn():
    side = 10**9
    with pytest.raises(ValueError, match="for an image of"):
        decode_rle({"size": [side, side], "counts": [side**2]}, (3, 4))


@pytest.mark.parametrize("counts", [[2**62, 2**62, 2**62, 2**62, 12], "~~", "0", "é", [3, -1, 2, 8], 7, None, ["a"]])
def test_broken_rle(counts):
    with pytest.raises((ValueError, TypeError)):
        decode_rle({"size": [3, 4], "counts": counts})


def test_compressed_rle_against_pycocotools():
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for height, width, share in [(7, 5, 0.5), (40, 33, 0.02), (64, 64, 0.9), (200, 300, 0.001), (3, 3, 0), (3, 3, 1)]:
        mask = rng.random((height, width)) < share
        packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        text = {"size": packed["size"], "counts": packed["counts"].decode()}
        np.testing.assert_array_equal(decode_rle(text), mask)
        np.testing.assert_array_equal(decode_rle(rle(mask)), mask)


def test_real_photos():
    folder = SHARED / "data" / "bsds500" / "val"
    if not folder.is_dir():
        pytest.skip("needs shared/data/bsds500/val beside the repository")
    data = Folder(folder)
    assert len(data) == 100
    sample = data[0]
    inside = [mask[int(y), int(x)] for mask, (x, y) in zip(sample.masks, sample.points, strict=True)]
    assert np.mean(inside) > 0.9
