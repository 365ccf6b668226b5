"""A YOLO pruned and fine-tuned by ultralytics. Real use: YOLO("yolo11n.pt"), your data.yaml, imgsz=640, more epochs.

The two habits of the library that ask for lines of their own are explained in docs/ultralytics.md.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from ultralytics import YOLO

import prunekit

torch.manual_seed(0)
for part in ("train", "val"):  # white squares on noise, instead of photos of yours
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        pixels[16:48, 16:48] = 255
        for kind in ("images", "labels"):
            Path("squares", kind, part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(f"squares/images/{part}/{number}.png")
        Path(f"squares/labels/{part}/{number}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
data = Path("squares/data.yaml").absolute()
data.write_text(f"path: {data.parent}\ntrain: images/train\nval: images/val\nnames: {{0: square}}\n")

yolo = YOLO("yolo11n.yaml")
blocks = [module for module in yolo.model.modules() if hasattr(module, "forward_split")]
for block in blocks:
    block.forward = block.forward_split  # what export runs reads a width that forward does not
result = prunekit.prune(yolo.model, torch.randn(1, 3, 64, 64), scorer="magnitude", ratio=0.3, ranking="global")
for block in blocks:
    del block.forward
print(result.report)
slim = yolo.model


class Trainer(yolo._smart_load("trainer")):
    def get_model(self, cfg=None, weights=None, verbose=True):
        return slim  # the library would build the model of its yaml here, whole again


asked = {"data": str(data), "imgsz": 64, "device": "cpu", "workers": 0, "plots": False, "verbose": False}
yolo.train(trainer=Trainer, epochs=1, batch=4, project=str(Path("runs").absolute()), **asked)
print(sum(p.numel() for p in yolo.model.parameters()), "parameters, fine-tuned")
