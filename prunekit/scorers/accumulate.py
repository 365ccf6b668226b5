"""How the products weight x gradient of several images become one number a weight.

Let w be a weight and g_i its gradient for image i of n:

    abs      mean_i |w g_i|             converges with the number of images
    squared  sqrt(mean_i (w g_i)^2)     converges; the diagonal of the empirical Fisher matrix, as an amplitude
    signed   |w sum_i g_i|              does not converge for a loss whose gradients have zero mean over images
    second_moment  mean_i (w g_i)^2     squared without the root: adds up over the weights of a unit
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from prunekit.errors import RegistryError


@dataclass(frozen=True)
class Accumulation:
    """``term`` turns (w, g) of one image into what is summed, ``finish`` turns (w, sum, n) into the product."""

    term: Callable[[Tensor, Tensor], Tensor]
    finish: Callable[[Tensor, Tensor, int], Tensor]


ACCUMULATIONS: dict[str, Accumulation] = {
    "abs": Accumulation(lambda w, g: (w * g).abs(), lambda w, total, n: total / n),
    "squared": Accumulation(lambda w, g: (w * g).square(), lambda w, total, n: (total / n).sqrt()),
    "second_moment": Accumulation(lambda w, g: (w * g).square(), lambda w, total, n: total / n),
    "signed": Accumulation(lambda w, g: g, lambda w, total, n: (w * total).abs()),
}


def accumulation(name: str) -> Accumulation:
    """The accumulation of that name. Raises RegistryError on another."""
    if name not in ACCUMULATIONS:
        raise RegistryError.unknown("accumulation", name, ACCUMULATIONS)
    return ACCUMULATIONS[name]
