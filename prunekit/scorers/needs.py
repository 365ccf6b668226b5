"""What a criterion asks of a model and its samples, and what it differentiates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from prunekit.inputs import Sample


@dataclass(frozen=True)
class Needs:
    """What a criterion needs and what it costs, for people: the class attribute ``needs`` of every scorer here.

    ``labels`` says that it cannot score without a loss and targets.
    """

    data: str
    cost: str
    labels: bool = False


NOTHING = Needs("nothing", "none")
WEIGHTS = Needs("weights", "one pass through the weights")
FORWARD = Needs("inputs", "one forward pass a sample")
BACKWARD = Needs("inputs", "one forward and one backward pass a sample")
LABELLED = Needs("inputs, labels, a loss", "one forward and one backward pass a sample", labels=True)
CURVATURE = Needs(
    "inputs, labels, a loss", "one forward and three backward passes' work a sample and probe", labels=True
)
EXPERTS = Needs("inputs", "one forward pass a sample, and one of a mixture for each of its experts")


class Objective(Protocol):
    """What is differentiated. Hashable, so that its products are computed once."""

    def loss(self, model: Callable[..., Any], sample: Sample, key: int) -> Tensor:
        """Scalar loss of one sample, with a graph to the parameters.

        ``key`` identifies the sample by its content and its repetition: noise seeded by it does not depend on the
        order of the samples.
        """
        ...
