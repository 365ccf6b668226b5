"""A control for disturbed Taylor: the same first-order product, of the output itself instead of a disturbed target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from prunekit.scorers import BACKWARD, Needs, Reads, SquaredOutput, Within, of_kinds, score_products

if TYPE_CHECKING:
    from prunekit.coupling import Group
    from prunekit.scorers import Statistics


@dataclass(frozen=True)
class OutputTaylor:
    """I = |w dL/dw|, L half the mean square of every floating output; a stand-in for Taylor where there are no labels.

    ``accumulation``, over images, ``within`` and ``reads`` are as of ``prunekit.DisturbedTaylor``.
    """

    needs: ClassVar[Needs] = BACKWARD

    accumulation: str = "abs"
    within: Within = "mean"
    reads: Reads = "all"

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64."""
        found = statistics.products(SquaredOutput(), self.accumulation, None)
        return score_products(of_kinds(group, statistics, self.reads), found, "mean", self.within)
