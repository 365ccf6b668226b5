"""Means and sums over the samples of several ranks, out of those over each rank's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from prunekit.inputs.per_rank import Alone
from prunekit.scorers.contributions import Contributions

K = TypeVar("K")


def mean_of_tensors(own: Mapping[K, Tensor], mine: int, count: int, ranks: Alone) -> dict[K, Tensor]:
    """The mean over ``count`` samples of all ranks, out of the means over the ``mine`` of this one."""
    if ranks.size == 1:
        return dict(own)
    sums = ranks.total([value.double() * mine for value in own.values()])
    return {key: (total / count).to(value) for (key, value), total in zip(own.items(), sums, strict=True)}


def mean_of_numbers(own: Sequence[float], mine: int, count: int, ranks: Alone) -> list[float]:
    """``mean_of_tensors`` of plain numbers."""
    found = mean_of_tensors({0: torch.tensor(own, dtype=torch.float64, device="cpu")}, mine, count, ranks)
    return [float(value) for value in found[0]]


def sum_of_contributions(own: Mapping[str, Contributions], ranks: Alone) -> dict[str, Contributions]:
    """What experts add over the tokens of all ranks."""
    if ranks.size == 1:
        return dict(own)
    found = {}
    for name, each in own.items():
        tokens = torch.tensor([each.total], dtype=torch.float64, device="cpu")
        norms, sent, total = ranks.total([each.norms, each.tokens, tokens])
        found[name] = Contributions(norms, sent, int(total))
    return found
