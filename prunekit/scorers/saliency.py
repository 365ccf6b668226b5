"""Saliency: how sensitive the model's output is to a unit, without labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.inputs import Sample
from prunekit.scorers.calibrate import wide
from prunekit.scorers.kinds import Reads, kinds_named, of_kinds
from prunekit.scorers.needs import BACKWARD, Needs
from prunekit.scorers.outputs import floating_outputs
from prunekit.scorers.product_scores import score_products
from prunekit.scorers.reducers import Reducer, Within, reducer
from prunekit.scorers.statistics import Statistics


@dataclass(frozen=True)
class SquaredOutput:
    """Half the mean square of every floating output y; its gradient is y / N."""

    output: Callable[[Any], Any] | None = None

    def loss(self, model: Callable[..., Any], sample: Sample, key: int) -> Tensor:
        found = floating_outputs(model, sample, self.output, "differentiate")
        losses = [y.to(wide(y)).square().mean() / 2 for y in found if y.requires_grad]
        return torch.stack([loss.to(losses[0].device) for loss in losses]).sum()


@dataclass(frozen=True)
class Saliency:
    """I = w^2 mean_i (d(|y_i|^2 / 2N) / dw)^2: squared gradients of the squared output (Aljundi et al. 2018, Eq. 4).

    The paper takes the mean of |g|; squared per-sample gradients weigh rare, strong dependence higher.

    Args:
        output: picks the tensor, or tensors, out of what the model returns.
        across, within: how weights become units.
        reads: kinds of parameters that count, such as ``matrix`` alone; see ``scorers/kinds.py``.
        images: use the first so many samples; None means all.
    """

    needs: ClassVar[Needs] = BACKWARD

    output: Callable[[Any], Any] | None = None
    across: str | Reducer = "sum"
    within: Within = "sum"
    reads: Reads = "all"
    images: int | None = None

    def __post_init__(self) -> None:
        reducer(self.across)
        kinds_named(self.reads)

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64."""
        found = statistics.products(SquaredOutput(self.output), "second_moment", self.images)
        return score_products(of_kinds(group, statistics, self.reads), found, self.across, self.within)
