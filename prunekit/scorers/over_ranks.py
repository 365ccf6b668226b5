"""Means and sums over the samples of several ranks, out of those over each rank's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from prunekit.inputs.per_rank import Alone
from prunekit.modules.moments import Gram, Split, added
from prunekit.modules.observing import Product
from prunekit.scorers.contributions import Contributions
from prunekit.scorers.second_moments import Reads

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


def sums_of_reads(own: Sequence[Reads], ranks: Alone) -> list[Reads]:
    """What is read over the rows of all ranks; samples may pass parameters by that those of another rank meet."""
    if ranks.size == 1:
        return list(own)
    mine = {_part(reads.like): reads for reads in own if added(reads.split.tried, reads.split.held).rows}
    told = [
        (part, tuple(_with_constant(reads).shape), reads.mean_of, reads.ends, reads.calls)
        for part, reads in mine.items()
    ]
    everyones = [one for rank in ranks.all("what is read", told) for one in rank]
    found = []
    for part, shape in dict.fromkeys((part, shape) for part, shape, *_ in everyones):
        same = [one for one in everyones if one[0] == part]
        (sums,) = ranks.total([_with_constant(mine[part]) if part in mine else _none(shape)])
        # the last row and column: what a constant feature of 1 would add
        gram = Gram(sums[:, :-1, :-1], sums[:, :-1, -1], int(sums[0, -1, -1]))
        name, feature_axis, output_axis, start, outputs, groups, settings = part
        like = Product(name, feature_axis, output_axis, start, outputs, sums[:0], groups, settings)
        mean_of = next((one[2] for one in same if one[2] is not None), None)
        found.append(Reads(like, Split(gram), mean_of, sum(one[3] for one in same), sum(one[4] for one in same)))
    return found


def _part(product: Product) -> tuple[Any, ...]:
    settings = product.settings and tuple(map(tuple, product.settings))
    return (
        product.name,
        product.feature_axis,
        product.output_axis,
        product.start,
        product.outputs,
        product.groups,
        settings,
    )


def _none(shape: tuple[int, ...]) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64, device="cpu")


def _with_constant(reads: Reads) -> Tensor:
    """(G, K + 1, K + 1), on the CPU: sums of (x, 1) (x, 1)^T."""
    gram = added(reads.split.tried, reads.split.held)
    assert gram.xx is not None
    assert gram.x is not None
    column = gram.x.unsqueeze(2)
    last = torch.cat([column.transpose(1, 2), torch.full_like(column[:, :1], gram.rows)], 2)
    return torch.cat([torch.cat([gram.xx, column], 2), last], 1).cpu()
