"""The seams of scoring: what a criterion is, and what it differentiates."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.inputs import Sample

if TYPE_CHECKING:
    from prunekit.scorers.statistics import Statistics


class Scorer(Protocol):
    """A criterion: how much every unit of a group matters."""

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance of shape (group.size,), float, finite; higher = keep."""
        ...


class Objective(Protocol):
    """What is differentiated. Hashable, so that its products are computed once."""

    def loss(self, model: Callable[..., Any], sample: Sample, key: int) -> Tensor:
        """Scalar loss of one sample, with a graph to the parameters.

        ``key`` identifies the sample by its content and its repetition: noise seeded by it does not depend on the
        order of the samples.
        """
        ...
