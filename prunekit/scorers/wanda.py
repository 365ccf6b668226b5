"""Wanda: how large a weight is, times how large what it reads is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.errors import ScorerError
from prunekit.scorers.needs import FORWARD, Needs
from prunekit.scorers.reducers import Reducer, Within, reducer, rows
from prunekit.scorers.statistics import Statistics


@dataclass(frozen=True)
class Wanda:
    """I = |w| rms(x) per weight, x the feature that the weight is multiplied with (Sun et al. 2023, Eq. 1).

    The paper has the norm |x|_2 over tokens; the root mean square differs by a factor that is the same for all units
    of a group. Parameters that are no factor of a product with data (biases, norms, tables) are left out.

    Args:
        across, within: how weights become units.
        images: use the first so many samples; None means all.
    """

    needs: ClassVar[Needs] = FORWARD

    across: str | Reducer = "mean"
    within: Within = "mean"
    images: int | None = None

    def __post_init__(self) -> None:
        reducer(self.across)

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64. Raises ScorerError where no parameter of the group meets data."""
        features = statistics.activations(self.images).inputs
        met = tuple(m for m in group.parameters if m.tensor in features)
        if not met:
            raise ScorerError(
                f"no parameter of group {group.name} is multiplied with data",
                where=group.name,
                hint=f"exclude={[group.name]!r} leaves it as it is; Magnitude and DisturbedTaylor can score it",
            )

        def values(name: str) -> Tensor:
            weight = statistics.parameter(name)
            return weight.abs() * features[name].mean_square.sqrt().to(weight.device, weight.dtype)

        return reducer(self.across)(rows(replace(group, members=met), values, self.within))
