"""The layouts that people have: tars as SA-1B comes, COCO files; and what becomes of what is broken in them."""

from __future__ import annotations

import io
import json
import tarfile
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from prunekit_sam import models
from prunekit_sam.coco import Coco, deepest
from prunekit_sam.data import Folder, found_in
from prunekit_sam.plugin import sa1b
from prunekit_sam.scenes import bounding_box, point_inside, scene
from prunekit_sam.streams import stream
from prunekit_sam.tars import Tars, index_of

from prunekit.cli.app import run as command
from prunekit.errors import DataError, InputError
from prunekit.samples import split_of

SIDE = 40


def packed(mask):
    flat = mask.T.ravel()
    runs = np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


def notes_of(made):
    return [
        {
            "segmentation": packed(mask),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "point_coords": [list(point_inside(mask))],
        }
        for mask in made.masks
        for x0, y0, x1, y1 in [bounding_box(mask)]
    ]


def pair(name, seed, fault=""):
    """The members of one image: (name, bytes) of its picture and of its JSON file."""
    made, picture = scene(seed, 0, SIDE), io.BytesIO()
    Image.fromarray(made.image).save(picture, "PNG")
    pixels, notes = picture.getvalue(), notes_of(made)
    if fault == "truncated":
        pixels = pixels[: len(pixels) // 2]
    if fault == "rle":
        notes[0]["segmentation"]["counts"][0] += 7
    return [(f"./{name}.png", pixels), (f"./{name}.json", json.dumps({"annotations": notes}).encode())]


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def broken_members():
    """Two sound images and four faults: a truncated image, one without JSON, one with a broken RLE, a JSON alone."""
    sound = pair("a", 1) + pair("f", 6)
    return sound + pair("b", 2, "truncated") + pair("c", 3)[:1] + pair("d", 4, "rle") + pair("e", 5)[1:]


FAULTS = {
    "b.png": "cannot read the image",
    "c.png": "without its JSON",
    "d.png": "broken RLE",
    "e.json": "without its im",
}


def same(one, other):
    assert one.name == other.name
    for field in ("image", "masks", "points", "boxes"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


@pytest.mark.parametrize("order", [lambda m: m, lambda m: m[::-1], lambda m: sorted(m, key=lambda x: x[0][-3:])])
def test_tars_give_what_the_unpacked_folder_gives_in_whatever_order(tmp_path, order):
    members = pair("p", 1) + pair("q", 2) + pair("r.s", 3)
    (tmp_path / "folder").mkdir()
    for name, content in members:
        (tmp_path / "folder" / name).write_bytes(content)
    write_tar(tmp_path / "0.tar", order(members[:4]))
    write_tar(tmp_path / "1.tar", order(members[4:]))
    folder, tars = Folder(tmp_path / "folder"), found_in(tmp_path, "val")
    assert isinstance(tars, Tars)
    assert len(tars) == 3
    assert not tars.skipped
    for one, other in zip(folder, tars, strict=True):
        same(one, other)
    streamed = {sample.name: sample for sample in stream(sorted(tmp_path.glob("*.tar")))}
    assert len(streamed) == 3
    for sample in folder:
        same(sample, streamed[sample.name])


def test_a_tar_is_indexed_once_and_only_as_many_as_are_needed(tmp_path, monkeypatch):
    tars = [write_tar(tmp_path / f"{n}.tar", pair(f"x{n}", n) + pair(f"y{n}", n + 9)) for n in range(3)]
    opened, really = [], tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda path, mode: opened.append(path) or really(path, mode))
    found = Tars(tars, limit=3)
    assert [sample.name for sample in found] == ["x0", "y0", "x1", "y1"]
    assert [sample.name for sample in Tars(tars)] == ["x0", "y0", "x1", "y1", "x2", "y2"]
    assert opened == tars
    assert list(found.names)[1] == f"{tars[0]}/y0.png"


def test_a_tar_that_breaks_off_is_used_up_to_there_and_named(tmp_path):
    tar = write_tar(tmp_path / "t.tar", pair("a", 1) + pair("b", 2))
    table = index_of(tar)
    middle = int(table.images[1][0]) + 20
    tar.write_bytes(tar.read_bytes()[:middle])
    found = Tars([tar])
    assert [sample.name for sample in found] == ["a"]
    assert {fault.name for fault in found.skipped} >= {str(tar)}
    noted = []
    assert [sample.name for sample in stream([tar], note=noted.append)] == ["a"]
    assert str(tar) in {fault.name for fault in noted}
    (tmp_path / "no.tar").write_bytes(b"no tar at all" * 99)
    with pytest.raises(DataError, match=r"no\.tar.*not readable"):
        found_in(tmp_path / "no.tar", "val")


def test_faults_in_a_tar_are_noted_and_training_needs_no_json(tmp_path):
    tar = write_tar(tmp_path / "t.tar", broken_members())
    sam = models.build_sam("nano")
    val = sa1b(sam, tar, "val", None, 0)
    assert [sample.name for sample in val.items] == ["a", "f"]
    assert {fault.name.rpartition("/")[2]: fault.reason for fault in val.skipped}.keys() == FAULTS.keys()
    for fault in val.skipped:
        assert FAULTS[fault.name.rpartition("/")[2]] in fault.reason
    train = sa1b(sam, tar, "train", None, 0)
    assert len(train) == 5
    assert [sample.name for sample in train.items] == ["a", "c", "c", "d", "f"]
    assert [fault.name.rpartition("/")[2] for fault in train.skipped] == ["e.json", "b.png"]
    noted = []
    assert sorted(sample.name for sample in stream([tar], note=noted.append)) == ["a", "f"]
    assert sorted(fault.name.rpartition("/")[2] for fault in noted) == sorted(FAULTS)


def test_the_run_goes_on_and_the_report_counts_and_names_them(tmp_path, capsys):
    tar = write_tar(tmp_path / "t.tar", broken_members())
    fast = ["images=2", "train_images=4", "val_images=2", "epochs=1", "align_epochs=1", "latency=false"]
    settings = [word for setting in fast for word in ("--set", setting)]
    out = tmp_path / "out"
    code = command(
        [
            "prune",
            "sam:nano",
            "--recipe",
            "slimsam",
            "--data",
            str(tar),
            "--val",
            str(tar),
            "--out",
            str(out),
            *settings,
        ]
    )
    said = capsys.readouterr()
    assert code == 0, said.err
    skipped = json.loads((out / "report.json").read_text())["skipped"]
    named = {item["name"].rpartition("/")[2]: item["reason"] for item in skipped["items"]}
    assert skipped["count"] == len(skipped["items"]) == len(FAULTS)
    for name, reason in FAULTS.items():
        assert reason in named[name]
    assert f"skipped  {len(FAULTS)} unusable samples" in said.out + said.err


def unpacked(folder, members):
    folder.mkdir()
    for name, content in members:
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("layout", ["tar", "folder"])
def test_an_evaluation_goes_on_and_its_report_counts_and_names_them(tmp_path, layout, capsys):
    sound = unpacked(tmp_path / "sound", pair("a", 1) + pair("f", 6))
    make = {"tar": write_tar, "folder": unpacked}[layout]
    data = make(tmp_path / f"{layout}.tar", broken_members())
    reports = []
    for source in (sound, data):
        assert command(["eval", "sam:nano", "--data", str(source), "--json"]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    clean, report = reports
    assert report["rows"] == clean["rows"]
    assert report["images"] == 2
    assert clean["skipped"] == {"count": 0, "items": []}
    named = {item["name"].rpartition("/")[2]: item["reason"] for item in report["skipped"]["items"]}
    assert report["skipped"]["count"] == len(report["skipped"]["items"]) == len(FAULTS)
    assert all(reason in named[name] for name, reason in FAULTS.items())
    assert command(["eval", "sam:nano", "--data", str(data), "--images", "1"]) == 0
    said = capsys.readouterr().out
    assert "masks of 1 images" in said
    assert "skipped  2 unusable samples" in said  # the halves alone; the others come after the image that was scored


NAMES = [f"sa_{number}" for number in range(100)]
TEST, VAL, TRAIN = ([name for name in NAMES if split_of(name) == part][:3] for part in ("test", "val", "train"))


def test_every_layout_has_the_same_parts(tmp_path):
    names = [*TEST, *VAL, *TRAIN]
    members = [pair(name, seed) for seed, name in enumerate(names)]
    for number in range(0, len(names), 2):
        write_tar(tmp_path / f"{number}.tar", chain(*members[number : number + 2]))
    folder = unpacked(tmp_path / "folder", chain(*members))
    coco = unpacked(tmp_path / "coco", [two[0] for two in members])
    notes = [{"image_id": i, **json.loads(two[1][1])["annotations"][0]} for i, two in enumerate(members)]
    images = [{"id": i, "file_name": f"{name}.png"} for i, name in enumerate(names)]
    (coco / "instances_x.json").write_text(json.dumps({"images": images, "annotations": notes}))
    for source in (tmp_path, folder, coco):
        for part, expected in {"test": TEST, "val": VAL, "train": TRAIN, "all": names}.items():
            found = found_in(source, "val", part=part)
            assert sorted(sample.name for sample in found) == sorted(expected)
            assert [Path(name).stem for name in found.names] == [sample.name for sample in found]
    limited = Tars(sorted(tmp_path.glob("*.tar")), limit=1, part="val")  # the second tar is the first with any
    assert [sample.name for sample in limited] == VAL[:1]


@pytest.mark.parametrize("layout", ["tar", "folder"])
def test_nothing_in_a_part_is_said(tmp_path, layout):
    make = {"tar": write_tar, "folder": unpacked}[layout]
    data = make(tmp_path / f"{layout}.tar", pair(TRAIN[0], 1))
    with pytest.raises(DataError, match=r"nothing of .* is in the part 'test'"):
        found_in(data, "val", part="test")
    with pytest.raises(InputError, match="unknown split 'dev'"):
        found_in(data, "val", part="dev")


@pytest.mark.parametrize("layout", ["tar", "folder"])
def test_a_run_on_parts_of_one_folder_never_reads_its_test_part(tmp_path, layout, capsys):
    """What is read and broken is named in the report: of the test part, two are broken, and nothing is named."""
    members = pair(TEST[0], 1) + pair(TEST[1], 2, "truncated") + pair(TEST[2], 3, "rle")
    members += [member for seed, name in enumerate([*VAL, *TRAIN]) for member in pair(name, 4 + seed)]
    data = {"tar": write_tar, "folder": unpacked}[layout](tmp_path / f"{layout}.tar", members)
    out = tmp_path / "out"
    fast = ["images=9", "val_images=9", "epochs=1", "align_epochs=1", "batch=9", "train_images=9", "latency=false"]
    asked = ["--recipe", "slimsam", "--data", str(data), *(word for one in fast for word in ("--set", one))]
    assert command(["prune", "sam:nano", *asked, "--out", str(out), "--set", "split=true", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["skipped"]["count"] == 0
    assert report["settings"]["split"] is True
    assert command(["eval", str(out), "--data", str(data), "--split", "val", "--prompts", "point", "--json"]) == 0
    val = json.loads(capsys.readouterr().out)
    assert val["images"] == len(VAL)
    assert val["rows"][str(out)]["point"]["miou"] == pytest.approx(report["metrics"]["point_miou"]["after"], abs=1e-4)
    assert command(["eval", str(out), "--data", str(data), "--split", "test", "--json"]) == 0
    test = json.loads(capsys.readouterr().out)
    assert (test["images"], test["skipped"]["count"]) == (1, 2)


def test_parts_of_two_folders_are_refused(tmp_path, capsys):
    data = unpacked(tmp_path / "data", pair(TRAIN[0], 1) + pair(VAL[0], 2))
    asked = ["prune", "sam:nano", "--set", "split=true", "--out", str(tmp_path / "out")]
    assert command([*asked, "--data", str(data), "--val", str(data)]) == 2
    assert "one folder" in capsys.readouterr().err
    assert command(asked) == 2
    assert "one folder" in capsys.readouterr().err


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_tar_is_read_by_one_rank(tmp_path, ranks):
    tars = [write_tar(tmp_path / f"{n}.tar", pair(f"x{n}", n)) for n in range(5)]
    read = [[sample.name for sample in stream(tars, rank, ranks, masks=False)] for rank in range(ranks)]
    assert sorted(name for names in read for name in names) == [f"x{n}" for n in range(5)]
    assert all(read)


class _Names(torch.utils.data.IterableDataset):
    def __init__(self, tars):
        self.tars = tars

    def __iter__(self):
        return (sample.name for sample in stream(self.tars, 1, 2, masks=False))


def test_every_tar_is_read_by_one_worker(tmp_path):
    tars = [write_tar(tmp_path / f"{n}.tar", pair(f"x{n}", n)) for n in range(6)]
    loader = torch.utils.data.DataLoader(_Names(tars), batch_size=None, num_workers=2)
    assert sorted(loader) == ["x1", "x3", "x5"]


def test_a_stream_refuses_ranks_without_a_tar(tmp_path):
    tar = write_tar(tmp_path / "t.tar", pair("a", 1))
    with pytest.raises(DataError, match="1 tars for 2 ranks"):
        stream([tar], 0, 2)
    with pytest.raises(InputError, match="no rank 2"):
        stream([tar], 2, 2)


def write_coco(folder, places=("annotations", "val2017"), extra=()):
    """One image with a polygon, one with both kinds of RLE, one without annotations, one that is not there."""
    from pycocotools import mask as coco

    (folder / places[0]).mkdir(parents=True, exist_ok=True)
    (folder / places[1]).mkdir(parents=True, exist_ok=True)
    made = scene(0, 0, SIDE)
    for name in ("b.png", "a.png", "empty.png"):
        Image.fromarray(made.image).save(folder / places[1] / name)
    text = coco.encode(np.asfortranarray(made.masks[1].astype(np.uint8)))
    notes = [
        {"image_id": 1, "segmentation": [[5, 5, 25, 5, 25, 15, 5, 15]], "bbox": [5, 5, 20, 10], "iscrowd": 0},
        {"image_id": 2, "segmentation": packed(made.masks[0])},
        {"image_id": 2, "segmentation": {"size": text["size"], "counts": text["counts"].decode()}},
        {"image_id": 2, "segmentation": packed(~made.masks[0]), "iscrowd": 1},
        {"image_id": 4, "segmentation": packed(made.masks[0])},
        *extra,
    ]
    names = {1: "a.png", 2: "b.png", 3: "empty.png", 4: "gone.png"}
    table = {"images": [{"id": i, "file_name": name} for i, name in names.items()], "annotations": notes}
    (folder / places[0] / "instances_val2017.json").write_text(json.dumps(table))
    return made


@pytest.mark.parametrize("places", [("annotations", "val2017"), ("", ""), ("", "images")])
def test_coco_annotations(tmp_path, places):
    made = write_coco(tmp_path, places)
    found = found_in(tmp_path, "val")
    assert isinstance(found, Coco)
    polygon, runs = found
    assert (polygon.name, runs.name) == ("a", "b")
    assert polygon.masks[0][5:15, 5:25].all()
    assert polygon.masks[0].sum() == pytest.approx(200, abs=35)
    np.testing.assert_array_equal(polygon.boxes, [[5, 5, 25, 15]])
    np.testing.assert_array_equal(runs.masks, made.masks[:2])
    np.testing.assert_array_equal(runs.boxes, [bounding_box(mask) for mask in made.masks[:2]])
    for mask, (x, y) in zip([*polygon.masks, *runs.masks], [*polygon.points, *runs.points], strict=True):
        assert mask[int(y), int(x)]
    assert {Path(fault.name).name for fault in found.skipped} == {"empty.png", "gone.png"}
    images = found_in(tmp_path, "train")
    assert [sample.name for sample in images] == ["a", "b", "empty"]
    assert all(sample.masks is None for sample in images)


def test_the_coco_file_of_the_split_is_taken(tmp_path):
    write_coco(tmp_path)
    notes = tmp_path / "annotations"
    (notes / "instances_train2017.json").write_text((notes / "instances_val2017.json").read_text())
    assert found_in(tmp_path, "val").file.name == "instances_val2017.json"
    assert Coco(tmp_path, "val").file.name == "instances_val2017.json"
    (notes / "instances_valid.json").write_text("{}")
    with pytest.raises(DataError, match=r"3 annotation files .* 2 of them for val"):
        found_in(tmp_path, "val")


@pytest.mark.parametrize(
    "segmentation",
    [
        [],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, float("nan")]],
        [[0, 0, 1e12, 0, 0, 5]],
        {"size": [SIDE, SIDE], "counts": "~~"},
        {"size": [SIDE, SIDE], "counts": [5]},
        {"size": [3, 3], "counts": [9]},
        "x",
        None,
    ],
)
def test_a_broken_segment_costs_its_image_only(tmp_path, segmentation):
    write_coco(tmp_path, extra=[{"image_id": 1, "segmentation": segmentation}])
    samples = sa1b(models.build_sam("nano"), tmp_path, "val", None, 0)
    assert [sample.name for sample in samples.items] == ["b"]
    assert "a.png" in {Path(fault.name).name for fault in samples.skipped}


def test_a_coco_file_that_is_none(tmp_path):
    (tmp_path / "instances_x.json").write_text('{"images": []}')
    with pytest.raises(DataError, match=r"instances_x\.json: no 'annotations'"):
        found_in(tmp_path, "val")


def test_the_deepest_point_is_farthest_from_the_outside():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = np.kron(rng.random((4, 5)) < 0.5, np.ones((6, 7))) > 0
        if not mask.any():
            continue
        padded = np.argwhere(~np.pad(mask, 1)) - 1
        depth = {(x, y): ((padded - [y, x]) ** 2).sum(1).min() for y, x in np.argwhere(mask)}
        x, y = deepest(mask)
        assert depth[int(x), int(y)] == max(depth.values())
