"""Ridge regression from second moments: of what removed features gave, on the features that are left."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prunekit.compensation.settings import STRENGTHS

PROJECTIONS = 64  # random mixtures of a layer's outputs on which strengths are tried
EXACT = 512  # features up to which products of rows are summed in float64


@dataclass(eq=False)
class Gram:
    """Sums over rows x of G independent products: x x^T (G, K, K), x (G, K), and how many rows, float64."""

    xx: Tensor | None = None
    x: Tensor | None = None
    rows: int = 0

    def add(self, x: Tensor) -> None:
        """Takes rows (G, R, K) in."""
        if not x.shape[1]:
            return
        x = x.double() if x.shape[2] <= EXACT else x.float()
        xx, total = (x.transpose(1, 2) @ x).double(), x.sum(1, dtype=torch.float64)
        self.xx = xx if self.xx is None else self.xx.add_(xx)
        self.x = total if self.x is None else self.x.add_(total)
        self.rows += x.shape[1]


def added(a: Gram, b: Gram) -> Gram:
    """The sums over the rows of both."""
    if a.xx is None or a.x is None or b.xx is None or b.x is None:
        return a if b.xx is None else b
    return Gram(a.xx + b.xx, a.x + b.x, a.rows + b.rows)


@dataclass(frozen=True, eq=False)
class Split:
    """Sums over the rows that a strength is tried on, and over those that it is judged by."""

    tried: Gram = field(default_factory=Gram)
    held: Gram = field(default_factory=Gram)


def about(gram: Gram, number: int, mean: Tensor) -> Tensor:
    """(K, K): second moments of product ``number`` about ``mean`` (K,)."""
    assert gram.xx is not None
    assert gram.x is not None
    cross = torch.outer(gram.x[number], mean)
    return gram.xx[number] - cross - cross.t() + gram.rows * torch.outer(mean, mean)


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
