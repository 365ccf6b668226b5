"""Point and box mIoU of one model, every image encoded once for both."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import cast

from segment_anything.modeling import Sam
from torch import Tensor, nn

from prunekit.plugins import Samples

from .evaluate import evaluate

KEPT_BYTES = 2**30  # of embeddings; images beyond that are encoded again


def miou(model: nn.Module, samples: Samples, progress: Callable[[int, int], None]) -> Mapping[str, float]:
    """Mean IoU with one point and with one box an annotation."""
    sam, count = cast(Sam, model), len(samples)
    once = _Once(sam.image_encoder)
    twin = _with_encoder(sam, once)
    point = evaluate(twin, samples.items, "point", progress=lambda done, total: progress(done, 2 * total))
    once.rewind()
    box = evaluate(twin, samples.items, "box", progress=lambda done, total: progress(count + done, 2 * total))
    return {"point_miou": point.miou, "box_miou": box.miou}


class _Once(nn.Module):
    """An encoder that hands its answers out again, in the same order, after ``rewind``."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.img_size = encoder, encoder.img_size
        self.kept: dict[int, Tensor] = {}
        self.calls = self.bytes = 0
        self.recording = True

    def rewind(self) -> None:
        self.calls, self.recording = 0, False

    def forward(self, pixels: Tensor) -> Tensor:
        index, self.calls = self.calls, self.calls + 1
        if not self.recording and index in self.kept:
            return self.kept.pop(index)
        embedding: Tensor = self.encoder(pixels)
        if self.recording and self.bytes + embedding.nbytes <= KEPT_BYTES:
            self.kept[index] = embedding
            self.bytes += embedding.nbytes
        return embedding


def _with_encoder(sam: Sam, encoder: nn.Module) -> Sam:
    """A second view of the same model, whose encoder is another; ``sam`` itself is not changed."""
    twin = copy.copy(sam)
    twin.__dict__["_modules"] = dict(sam._modules)  # copy.copy shares the table of submodules
    twin.image_encoder = encoder
    return twin
