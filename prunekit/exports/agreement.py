"""Outputs of a written model beside those of the pruned model."""

from __future__ import annotations

import math

from torch import Tensor

from prunekit.errors import ExportError
from prunekit.plugins.formats import Compared

TOLERANCE = (
    1e-4  # greatest difference of a written fp32 model, absolute; times the largest output where that is above 1
)


def difference_of(name: str, expected: Tensor, actual: Tensor) -> Compared:
    """How far ``actual`` is from ``expected``, tensors of one shape. Raises ExportError for another shape."""
    if expected.shape != actual.shape:
        raise ExportError(
            f"the written model gives {tuple(actual.shape)}, the pruned model {tuple(expected.shape)}", where=name
        )
    wanted = expected.detach().double().cpu()
    gap = (actual.detach().double().cpu() - wanted).abs()
    # a NaN in any place is no agreement, whatever max makes of it
    difference = float(gap.max()) if gap.numel() and not gap.isnan().any() else math.nan if gap.numel() else 0.0
    return Compared(name, difference, float(wanted.abs().max()) if wanted.numel() else 0.0)


def agreeing(name: str, expected: Tensor, actual: Tensor) -> Compared:
    """As ``compare``, for a model in full precision. Raises ExportError beyond ``TOLERANCE``."""
    found = difference_of(name, expected, actual)
    if not found.difference <= TOLERANCE * max(1.0, found.largest):
        raise ExportError(
            f"the written model differs by {found.difference:.2g} where outputs reach {found.largest:.2g}",
            where=name,
            hint="the folder was not written; this is a fault of the format or of a library that it uses: report it",
        )
    return found
