"""Disturbed Taylor: Taylor importance without labels (SlimSAM, arXiv 2312.05284, Eq. 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.errors import InputError
from prunekit.inputs import Sample
from prunekit.scorers.accumulate import accumulation as accumulation_named
from prunekit.scorers.calibrate import wide
from prunekit.scorers.kinds import Reads, kinds_named, of_kinds
from prunekit.scorers.needs import BACKWARD, Needs
from prunekit.scorers.outputs import floating_outputs
from prunekit.scorers.product_scores import score_products
from prunekit.scorers.reducers import Reducer, Within, reducer
from prunekit.scorers.statistics import Statistics


@dataclass(frozen=True)
class Disturbance:
    """MSE between the model's output y and its own output t = y disturbed by n ~ N(0, sigma^2).

    At t = y the plain loss has no gradient; with the noise it is dL/dy = 2 (y - t - n) / N = -2 n / N, N the number of
    elements of y. So one forward pass is teacher and student at once. Several floating outputs add their losses.
    """

    sigma: float
    seed: int
    output: Callable[[Any], Any] | None = None

    def loss(self, model: Callable[..., Any], sample: Sample, key: int) -> Tensor:
        students = floating_outputs(model, sample, self.output, "disturb")
        generator = torch.Generator("cpu").manual_seed((key + 0x632BE59BD9B4E019 * self.seed) % 2**63)
        losses = []
        for y in students:
            noise = self.sigma * torch.randn(y.shape, generator=generator, device="cpu", dtype=wide(y))
            if y.requires_grad:
                y = y.to(noise.dtype)
                # Subtracting the target before the noise keeps n exact where |y| is much larger than sigma.
                losses.append((y - y.detach() - noise.to(y.device)).square().mean())
        return torch.stack([loss.to(losses[0].device) for loss in losses]).sum()


@dataclass(frozen=True)
class DisturbedTaylor:
    """I = |dL(x, t + n)/dw * w|, n ~ N(0, sigma^2), L = MSE, t the model's own output (Eq. 4).

    Args:
        sigma: standard deviation of the noise, absolute, > 0. It scales all scores alike and changes no ranking.
        accumulation: abs (mean of |w g| over images), squared, or signed (|w sum g|, the reference code's, which does
            not converge with more images).
        seed: seed of the noise; with the content of an image it determines the image's noise.
        images: use the first so many samples; None means all.
        output: picks the tensor, or tensors, to disturb out of what the model returns.
        across: a reducer over the parameters of a group; see ``scorers/reducers.py``.
        within: mean or sum over a unit's elements in one parameter.
        reads: kinds of parameters that count, such as ``matrix`` alone; see ``scorers/kinds.py``.
    """

    needs: ClassVar[Needs] = BACKWARD

    sigma: float = 0.01
    accumulation: str = "abs"
    seed: int = 0
    images: int | None = None
    output: Callable[[Any], Any] | None = None
    across: str | Reducer = "mean"
    within: Within = "mean"
    reads: Reads = "all"

    def __post_init__(self) -> None:
        if not 0 < self.sigma < float("inf"):
            raise InputError(f"noise of sigma={self.sigma} cannot disturb", hint="choose sigma > 0, such as 0.01")
        if self.images is not None and self.images < 1:
            raise InputError(f"images={self.images} leaves nothing to score with", hint="choose at least one")
        accumulation_named(self.accumulation)
        reducer(self.across)
        kinds_named(self.reads)

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64. Raises ScorerError where nothing can be disturbed."""
        objective = Disturbance(self.sigma, self.seed, self.output)
        found = statistics.products(objective, self.accumulation, self.images)
        return score_products(of_kinds(group, statistics, self.reads), found, self.across, self.within)
