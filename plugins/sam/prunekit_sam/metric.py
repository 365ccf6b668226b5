"""Point and box mIoU of one model, every image encoded once for both."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from prunekit.samples import Samples

from .evaluation import both


def miou(model: nn.Module, samples: Samples, progress: Callable[[int, int], None]) -> Mapping[str, float]:
    """Mean IoU with one point and with one box an annotation."""
    point, box = both(model, samples.items, ("point", "box"), progress=progress)
    return {"point_miou": point.miou, "box_miou": box.miou}
