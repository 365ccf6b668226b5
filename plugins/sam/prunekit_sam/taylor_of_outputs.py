"""A control for disturbed Taylor: the same first-order product, of the output itself instead of a disturbed target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from prunekit.scorers import BACKWARD, Needs, SquaredOutput, score_products

if TYPE_CHECKING:
    from prunekit.coupling import Group
    from prunekit.scorers import Statistics


@dataclass(frozen=True)
class OutputTaylor:
    """I = |w dL/dw|, L half the mean square of every floating output; a stand-in for Taylor where there are no labels.

    ``accumulation`` is over images: abs, squared or signed; see ``prunekit.DisturbedTaylor``.
    """

    needs: ClassVar[Needs] = BACKWARD

    accumulation: str = "abs"

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64."""
        return score_products(group, statistics.products(SquaredOutput(), self.accumulation, None), "mean", "mean")
