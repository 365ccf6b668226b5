"""Which samples a seed sees."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunekit.inputs import Inputs, Sample
from prunekit.planning.calibration_inputs import generated_for, samples_for

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Drawn(Sequence[Sample]):
    """Some samples of a pool, each fetched when it is asked for."""

    pool: Sequence[Sample]
    indices: tuple[int, ...]

    @classmethod
    def of(cls, pool: Sequence[Sample], count: int, seed: int) -> Drawn:
        """``count`` samples without repetition, in an order of their own; the global RNG is not touched."""
        generator = torch.Generator("cpu").manual_seed(seed)
        return cls(pool, tuple(torch.randperm(len(pool), generator=generator, device="cpu")[:count].tolist()))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        return self.pool[self.indices[index]]


def pool_of(model: nn.Module, data: Iterable[Any] | None, like: Inputs, wanted: int, seed: int) -> Sequence[Sample]:
    """What is drawn from: a sequence of Sample as it is, other data as samples, or ``wanted`` generated ones.

    Raises InputError where the data do not fit the example inputs ``like``, or hold nothing.
    """
    if data is None:
        logger.warning("no data given: scoring on draws out of %d generated inputs; pass data= for better ones", wanted)
        return [Sample(inputs) for inputs in generated_for(model, like, wanted, seed)]
    if isinstance(data, Sequence) and len(data) and isinstance(data[0], Sample):
        return data
    return list(samples_for(model, data, like))
