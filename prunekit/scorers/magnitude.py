"""Magnitude: how large the weights of a unit are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.errors import InputError
from prunekit.scorers.calibrate import wide
from prunekit.scorers.reduce import Within, reducer, rows
from prunekit.scorers.statistics import Statistics


@dataclass(frozen=True)
class Magnitude:
    """I = mean over parameters of (mean |w|^p)^(1/p) over a unit's elements (Han et al. 2015, Li et al. 2017).

    Needs no data. ``p`` > 0; ``across`` is mean, sum or max over parameters; ``within`` is mean or sum over elements.
    """

    p: float = 2.0
    across: str = "mean"
    within: Within = "mean"

    def __post_init__(self) -> None:
        if not 0 < self.p < float("inf"):
            raise InputError(f"a magnitude of order p={self.p} is not defined", hint="choose p=1 or p=2")
        reducer(self.across)

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64. Raises ScorerError on weights that are not finite."""

        def powers(weight: Tensor, axis: int) -> Tensor:
            others = [k for k in range(weight.ndim) if k != axis]
            # one pass without a copy of the weight: tracing and planning are to cost less memory than the model
            norm = torch.linalg.vector_norm(weight, self.p, dim=others, dtype=wide(weight)) if others else weight.abs()
            return norm.double().pow(self.p)

        known = statistics.lines(("magnitude", self.p))
        return reducer(self.across)(rows(group, statistics.parameter, self.within, powers, known).pow(1 / self.p))
