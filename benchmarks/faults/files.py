"""Files from strangers: images, annotations, tars, texts, weights, plans and tables with something else in them."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import struct
import tarfile
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

import prunekit
from benchmarks.faults.counting import Section
from benchmarks.faults.mutation import with_another_value, with_other_bytes
from benchmarks.faults.tiny import tiny_model
from prunekit.errors import PrunekitError
from prunekit.files.weights import load_state, read_state
from prunekit.plans import Plan
from prunekit.quantities.latency_table import LatencyTable
from prunekit.runs.image_data import images
from prunekit.samples.texts import documents

SIDE = 24
NAMES = ("weights.safetensors", "weights.pth", "plan.json", "text.jsonl", "text.txt", "picture.png", "picture.jpg")
SECRET = "outside.png"


def files(count: int, seed: int, folder: Path) -> Section:
    """Single files that prunekit itself reads."""
    section, draw = Section("files from strangers", seed), random.Random(seed)
    good = folder / "good"
    good.mkdir(parents=True)
    _good_files(good)
    for number in range(count):
        name = NAMES[number % len(NAMES)]
        file = folder / "one" / name
        shutil.rmtree(file.parent, ignore_errors=True)
        file.parent.mkdir()
        content = (good / name).read_bytes()
        if name.endswith(("json", "jsonl")) and draw.random() < 0.6:
            file.write_text(with_another_value(content.decode(), draw))
        else:
            file.write_bytes(with_other_bytes(content, draw))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            section.attempt(lambda file=file: READS[file.suffix](file), f"{name}, number {number}")
    return section


def _good_files(folder: Path) -> None:
    model = tiny_model()
    save_file(dict(model.state_dict()), folder / NAMES[0], metadata={"prunekit.aliases": "{}"})
    torch.save(model.state_dict(), folder / NAMES[1])
    plan = prunekit.plan(model, torch.ones(1, 3, 8, 8), ratio=0.5, scorer="magnitude")
    (folder / NAMES[2]).write_text(plan.to_json())
    (folder / NAMES[3]).write_text('{"text": "one"}')
    (folder / NAMES[4]).write_text("some text\n\nand more")
    noise = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    for name in NAMES[5:]:
        Image.fromarray(noise).save(folder / name)


READS = {
    ".safetensors": lambda file: load_state(tiny_model(), read_state(file), file),
    ".pth": lambda file: load_state(tiny_model(), read_state(file), file),
    ".json": lambda file: prunekit.apply(tiny_model(), Plan.from_json(file.read_bytes().decode(errors="replace"))),
    ".jsonl": lambda file: list(documents(file)),
    ".txt": lambda file: list(documents(file)),
    ".png": lambda file: images(tiny_model(), file.parent, "val", 2, 0).batch([0]),
    ".jpg": lambda file: images(tiny_model(), file.parent, "val", 2, 0).batch([0]),
}


def annotated_data(count: int, seed: int, folder: Path) -> Section:
    """Folders in the layouts of SA-1B and COCO, and tars; nothing outside them is read."""
    from prunekit_sam.coco import Coco
    from prunekit_sam.data import Folder
    from prunekit_sam.tars import Tars

    section, draw = Section("annotated data", seed), random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIDE, SIDE), (255, 0, 255)).save(folder / SECRET)  # nothing may ever be read from it
    noise = np.random.default_rng(1).integers(0, 200, (SIDE, SIDE, 3), np.uint8)
    held = io.BytesIO()
    Image.fromarray(noise).save(held, "PNG")
    kinds = {"sa1b": Folder, "coco": Coco, "tar": lambda place: Tars([place / "a.tar"])}
    for number in range(count):
        kind = list(kinds)[number % 3]
        place = folder / "data"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        _data(kind, place, held.getvalue(), draw)

        def read(kind=kind, place=place):
            data = kinds[kind](place)
            found = []
            for index in range(len(data)):
                try:
                    found.append(data[index].image)
                except PrunekitError:
                    continue
            return found

        section.attempt(read, f"{kind}, number {number}", right=_nothing_outside)
    return section


def _nothing_outside(found) -> bool:
    return not any((image == np.array([255, 0, 255], np.uint8)).all() for image in found if image.size)


def _data(kind: str, place: Path, picture: bytes, draw) -> None:
    """One image and its annotations, one of them changed."""
    rle = {"size": [SIDE, SIDE], "counts": [100, 50, SIDE * SIDE - 150]}
    note = {"segmentation": rle, "bbox": [1, 1, 5, 5], "point_coords": [[3, 3]], "id": 1, "image_id": 1}
    compressed = {**note, "segmentation": {"size": [SIDE, SIDE], "counts": draw.choice(["T3b1j>", "o" * 100_000, ""])}}
    notes = {"annotations": [note, compressed if draw.random() < 0.3 else note]}
    if kind == "coco":
        notes["images"] = [{"id": 1, "file_name": draw.choice(["a.png", "a.png", f"../{SECRET}", "b/../a.png"])}]
    text = json.dumps(notes)
    text = with_another_value(text, draw) if draw.random() < 0.7 else text
    picture = with_other_bytes(picture, draw) if draw.random() < 0.3 else picture
    if kind == "tar":
        (place / "a.tar").write_bytes(_tar(picture, text.encode(), draw))
        return
    if draw.random() < 0.1 and kind == "coco":
        os.symlink(place.parent / SECRET, place / "a.png")
    else:
        (place / "a.png").write_bytes(picture)
    (place / ("instances_val.json" if kind == "coco" else "a.json")).write_text(text)


def _tar(picture: bytes, text: bytes, draw) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for name, content in (("a.png", picture), ("a.json", text)):
            member = tarfile.TarInfo(draw.choice([name, name, f"../{name}", f"/{name}"]))
            if draw.random() < 0.1:
                member.type, member.linkname = tarfile.SYMTYPE, f"../{SECRET}"
                tar.addfile(member)
                continue
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    made = bytearray(held.getvalue())
    way = draw.choice(["whole", "size", "bytes"])
    if way == "size":  # a size of up to 2^63 bytes, with the sum of the header made to fit
        made[124:136] = b"\x80" + bytes(3) + struct.pack(">Q", draw.choice([2**40, 2**62, 2**63 - 1, 10**6]))
        made[148:156] = b" " * 8
        made[148:156] = b"%06o\0 " % sum(made[:512])
    return with_other_bytes(bytes(made), draw) if way == "bytes" else bytes(made)


def tables(count: int, seed: int, folder: Path) -> Section:
    """Tables of operator times."""
    section, draw = Section("tables of times", seed), random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    LatencyTable(torch.device("cpu")).save(folder / "table.json")
    told = json.loads((folder / "table.json").read_text())
    text = json.dumps({**told, "seconds": {"addmm": 1e-3, "relu": None}})
    for number in range(count):
        file = folder / "table.json"
        if draw.random() < 0.6:
            file.write_text(with_another_value(text, draw))
        else:
            file.write_bytes(with_other_bytes(text.encode(), draw))
        section.attempt(lambda file=file: LatencyTable.load(file), f"table, number {number}")
    return section
