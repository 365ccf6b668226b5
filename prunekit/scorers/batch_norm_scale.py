"""BatchNormScale: how far batch normalisation turns a channel up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.errors import ScorerError
from prunekit.scorers.magnitude import Magnitude
from prunekit.scorers.needs import Needs
from prunekit.scorers.reducers import Reducer, reducer
from prunekit.scorers.statistics import Statistics


@dataclass(frozen=True)
class BatchNormScale:
    """I = |gamma| of the batch norms that a unit runs through (Liu et al. 2017, Network Slimming).

    A batch norm is a module with a one-dimensional ``weight`` and running statistics. ``across`` is a reducer over
    several of them.
    """

    needs: ClassVar[Needs] = Needs("weights; batch norms", "one pass through the scales")

    across: str | Reducer = "mean"

    def __post_init__(self) -> None:
        reducer(self.across)

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64. Raises ScorerError where no batch norm reads the group."""
        scales = tuple(m for m in group.parameters if _is_scale(m.tensor, statistics))
        if not scales:
            raise ScorerError(
                f"no batch norm reads group {group.name}",
                where=group.name,
                hint="exclude it, or use a scorer that reads other weights, such as Magnitude",
            )
        return Magnitude(p=1, across=self.across).score(replace(group, members=scales), statistics)


def _is_scale(name: str, statistics: Statistics) -> bool:
    module, _, attribute = name.rpartition(".")
    buffers = statistics.module(module)._buffers
    return attribute == "weight" and statistics.weight(name).ndim == 1 and "running_var" in buffers
