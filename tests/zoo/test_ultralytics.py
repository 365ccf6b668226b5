"""A pruned YOLO in its own library: it predicts, trains, validates and exports by ``YOLO``. Needs ultralytics.

``make models`` installs it and runs this file; the page docs/ultralytics.md says the same in words.
"""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

import prunekit

ultralytics = pytest.importorskip("ultralytics")
pytestmark = pytest.mark.filterwarnings("ignore")  # the library's own


@contextmanager
def as_exported(model):
    """Blocks run as the library's export runs them: the widths that only that code reads follow the cut."""
    blocks = [m for m in model.modules() if hasattr(m, "forward_split")]
    for block in blocks:
        block.forward = block.forward_split
    yield
    for block in blocks:
        del block.forward


def pruned(name, **asked):
    """As the page has it."""
    yolo = ultralytics.YOLO(f"{name}.yaml")
    with as_exported(yolo.model):
        result = prunekit.prune(yolo.model, torch.randn(1, 3, 64, 64), scorer="magnitude", **asked)
    return yolo, result


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for part in ("train", "val"):
        (folder / "images" / part).mkdir(parents=True)
        (folder / "labels" / part).mkdir(parents=True)
        for k in range(4):
            pixels = np.random.default_rng(k).integers(0, 255, (64, 64, 3), dtype=np.uint8)
            pixels[16:48, 16:48] = 255
            Image.fromarray(pixels).save(folder / "images" / part / f"{k}.png")
            (folder / "labels" / part / f"{k}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames: {{0: square}}\n")
    return folder / "data.yaml"


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["yolo11n", "yolov8n"])
def test_it_predicts_validates_trains_and_exports_by_its_own_library(name, photos, tmp_path):
    yolo, result = pruned(name, ratio=0.3, ranking="global")
    after = result.report.params["after"]
    assert after < 0.8 * result.report.params["before"]
    asked = {"data": str(photos), "imgsz": 64, "device": "cpu", "workers": 0, "plots": False, "verbose": False}
    asked |= {"project": str(tmp_path), "exist_ok": True}
    yolo.predict(np.zeros((64, 64, 3), dtype=np.uint8), imgsz=64, verbose=False)
    yolo.val(**asked)
    slim = yolo.model

    class Trainer(yolo._smart_load("trainer")):
        def get_model(self, cfg=None, weights=None, verbose=True):
            return slim  # the library builds the model of its yaml here, whole again

    yolo.train(trainer=Trainer, epochs=1, batch=4, **asked)
    assert count(yolo.model) == after
    best = ultralytics.YOLO(tmp_path / "train" / "weights" / "best.pt")
    assert count(best.model) == after
    exported = best.export(format="torchscript", imgsz=64, device="cpu")
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        mine = best.model.eval()(x)
        theirs = torch.jit.load(exported)(x)
    torch.testing.assert_close(theirs, mine[0], atol=1e-3, rtol=1e-3)
