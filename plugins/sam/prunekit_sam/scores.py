"""How well masks agree: IoU, boundary IoU, and their means over images and over masks. Never NaN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Masks = NDArray[np.bool_]
BOUNDARY = 0.02  # of the image's diagonal, Cheng et al. 2021
# COCO's 32^2 and 96^2 pixels, as shares of a 640 x 480 image: the upper bounds, exclusive, of small and medium
SMALL, MEDIUM = 32**2 / (640 * 480), 96**2 / (640 * 480)


@dataclass(frozen=True)
class Marks:
    """The annotations of one image: (n,) IoU, boundary IoU, and share of the image that the true mask covers."""

    iou: NDArray[np.float64]
    boundary: NDArray[np.float64]
    share: NDArray[np.float64]


def iou(predicted: Masks, true: Masks) -> NDArray[np.float64]:
    """(n,) IoU of (n, H, W) masks: 1 where both are empty, 0 where one is."""
    union = (predicted | true).sum((1, 2))
    return np.where(union == 0, 1.0, (predicted & true).sum((1, 2)) / np.maximum(union, 1))


def boundaries(masks: Masks, fraction: float = BOUNDARY) -> Masks:
    """The pixels of (n, H, W) masks within ``fraction`` of the image's diagonal, at least 1, of their inner edge.

    Source: Cheng et al. 2021, Boundary IoU: what erosion by a 3 x 3 square, repeated, takes away; the outside of the
    image is background.
    """
    from scipy import ndimage  # as in coco.py

    reach = max(1, round(fraction * float(np.hypot(*masks.shape[1:]))))
    inner = np.zeros_like(masks)
    for index, mask in enumerate(masks):
        found = ndimage.find_objects(mask.astype(np.uint8))
        if found:  # erosion sees nothing but zeros outside the box of the mask
            box = found[0]
            eroded = ndimage.minimum_filter(mask[box].view(np.uint8), 2 * reach + 1, mode="constant", cval=0)
            inner[index][box] = eroded > 0
    return masks & ~inner


def means(marks: Sequence[Marks]) -> Mapping[str, float | int | None]:
    """Means of the marks of at least one image.

    ``miou`` and ``boundary_iou`` are means over images of the means over an image's annotations, ``mask_iou`` is the
    plain mean over annotations; ``small``, ``medium`` and ``large`` are plain means too, None where there is no such
    mask, with their counts beside them.
    """
    every = np.concatenate([mark.iou for mark in marks])
    share = np.concatenate([mark.share for mark in marks])
    sizes = {"small": share < SMALL, "medium": (share >= SMALL) & (share < MEDIUM), "large": share >= MEDIUM}
    return {
        "miou": float(np.mean([mark.iou.mean() for mark in marks])),
        "boundary_iou": float(np.mean([mark.boundary.mean() for mark in marks])),
        "mask_iou": float(every.mean()),
        **{name: float(every[chosen].mean()) if chosen.any() else None for name, chosen in sizes.items()},
        **{f"{name}_masks": int(chosen.sum()) for name, chosen in sizes.items()},
    }
