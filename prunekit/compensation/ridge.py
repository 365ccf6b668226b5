"""Ridge regression from second moments: of what removed features gave, on the features that are left."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from prunekit.compensation.settings import STRENGTHS
from prunekit.modules.moments import Split, about, added

PROJECTIONS = 64  # random mixtures of a layer's outputs on which strengths are tried


def factor(gram: Tensor, strength: float) -> Tensor:
    """The Cholesky factor of gram (K, K) + strength x its mean diagonal; a stronger one where rounding needs it."""
    size = gram.diagonal().mean().clamp(min=1e-12)
    while True:
        shifted = gram.clone()
        shifted.diagonal().add_(strength * size)
        found: Tensor
        found, failed = torch.linalg.cholesky_ex(shifted)
        if not int(failed) or strength > 1e6:
            return found
        strength *= 10


def refitted(split: Split, number: int, weight: Tensor, kept: Tensor, centred: bool, strength: float | None) -> Fit:
    """Coefficients (O, kept) and intercepts (O,) to add, for what ``weight`` (O, K) reads beyond ``kept``.

    min over D, b of |W_R x_R - D x_S - b|^2 + lambda |D|^2, S what is kept and R the rest. Of the two systems with the
    same matrix, one column for each removed feature or one for each output, the one with fewer columns is solved.
    """
    whole = added(split.tried, split.held)
    assert whole.x is not None
    gone = torch.ones(weight.shape[1], dtype=torch.bool, device=weight.device)
    gone[kept] = False
    missing = weight[:, gone].double()
    if strength is None:
        strength = best_strength(split, number, missing, kept, gone, centred)
    mean = whole.x[number] / whole.rows if centred else torch.zeros_like(whole.x[number])
    if strength == math.inf:
        change = missing.new_zeros(len(weight), len(kept))
    else:
        moments = about(whole, number, mean)
        lower, cross = factor(moments[kept][:, kept], strength), moments[kept][:, gone]
        if cross.shape[1] <= len(missing):
            change = missing @ torch.cholesky_solve(cross, lower).t()
        else:
            change = torch.cholesky_solve(cross @ missing.t(), lower).t()
    return Fit(change, missing @ mean[gone] - change @ mean[kept])


@dataclass(frozen=True, eq=False)
class Fit:
    """What is added to a layer's coefficients (O, K) and to its intercept (O,)."""

    change: Tensor
    intercept: Tensor


def best_strength(split: Split, number: int, missing: Tensor, kept: Tensor, gone: Tensor, centred: bool) -> float:
    """The strength that does best on the rows that it was not refitted on; infinite where none helps there."""
    tried, held = split.tried, split.held
    if tried.x is None or held.x is None:
        return math.inf
    mean = tried.x[number] / tried.rows if centred else torch.zeros_like(tried.x[number])
    here, there = about(tried, number, mean), about(held, number, mean)
    mixed = mixtures(missing)
    wanted = here[kept][:, gone] @ mixed.t()
    square, cross = there[kept][:, kept], there[kept][:, gone] @ mixed.t()
    errors = {math.inf: 0.0}
    for strength in STRENGTHS:
        if strength != math.inf:
            change = torch.cholesky_solve(wanted, factor(here[kept][:, kept], strength))
            errors[strength] = float((change * (square @ change - 2 * cross)).sum())
    return min(errors, key=lambda s: (errors[s], s))


def mixtures(values: Tensor) -> Tensor:
    """At most ``PROJECTIONS`` random sums (P, K) of rows (O, K): what their squares add up to is kept on average."""
    if len(values) <= PROJECTIONS:
        return values
    generator = torch.Generator("cpu").manual_seed(len(values))
    signs = torch.randint(0, 2, (PROJECTIONS, len(values)), generator=generator, device="cpu").to(values) * 2 - 1
    return signs @ values / math.sqrt(PROJECTIONS)
