"""Norms along one axis of a weight, in one pass through its memory."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prunekit.scorers.calibrate import wide

_BLOCK = 1 << 18  # elements: a block and its powers stay in the cache


def powers(weight: Tensor, axis: int, p: float) -> Tensor:
    """(length of axis,), float64: the sum of |w|^p over all other axes.

    torch reduces fast over the last axes only; over the first ones it is twenty times slower than memory. So a weight
    is read in blocks of rows, and the columns are summed by a product with ones. No copy of the weight is made.
    """
    if weight.ndim <= 1:
        return weight.detach().to(wide(weight)).abs().double().pow(p)
    if axis == 0:
        flat = weight.reshape(weight.shape[0], -1)
        norm: Tensor = torch.linalg.vector_norm(flat, p, dim=1, dtype=wide(weight))
        return norm.double().pow(p)
    inner = math.prod(weight.shape[axis + 1 :])
    matrix = weight.reshape(-1, weight.shape[axis] * inner)
    sums = torch.zeros(matrix.shape[1], dtype=torch.float64, device=weight.device)
    rows = max(1, _BLOCK // max(1, matrix.shape[1]))
    ones = torch.ones(min(rows, matrix.shape[0]), dtype=wide(weight).to_real(), device=weight.device)
    for start in range(0, matrix.shape[0], rows):
        block = matrix[start : start + rows].to(wide(weight))
        raised = block * block if p == 2 and not block.is_complex() else block.abs().pow(p)
        sums += torch.mv(raised.t(), ones[: raised.shape[0]])
    return sums.reshape(weight.shape[axis], inner).sum(1)
