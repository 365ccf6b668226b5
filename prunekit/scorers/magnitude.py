"""Magnitude: how large the weights of a unit are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.errors import InputError
from prunekit.scorers.calibrate import finite
from prunekit.scorers.needs import WEIGHTS, Needs
from prunekit.scorers.norms import powers
from prunekit.scorers.reducers import Reducer, Within, reducer, rows
from prunekit.scorers.statistics import Statistics


@dataclass(frozen=True)
class Magnitude:
    """I = mean over parameters of (mean |w|^p)^(1/p) over a unit's elements (Han et al. 2015, Li et al. 2017).

    Needs no data. ``p`` > 0; ``across`` is a reducer over parameters; ``within`` is mean or sum over elements.
    """

    needs: ClassVar[Needs] = WEIGHTS

    p: float = 2.0
    across: str | Reducer = "mean"
    within: Within = "mean"

    def __post_init__(self) -> None:
        if not 0 < self.p < float("inf"):
            raise InputError(f"a magnitude of order p={self.p} is not defined", hint="choose p=1 or p=2")
        reducer(self.across)

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64. Raises ScorerError on weights that are not finite."""

        def values(name: str) -> Tensor:
            return statistics.weight(name).detach()

        def lines(name: str, weight: Tensor, axis: int) -> Tensor:
            found = powers(weight, axis, self.p)
            if not bool(torch.isfinite(found).all()):  # it has seen every element, so no other pass looks for NaN
                finite(weight, f"the weight {name} is not finite", name)
            statistics.is_sound(name)
            return found

        known = statistics.lines(("magnitude", self.p))
        return reducer(self.across)(rows(group, values, self.within, lines, known).pow(1 / self.p))
