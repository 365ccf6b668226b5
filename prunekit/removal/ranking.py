"""The order in which blocks go: by a criterion's scores, of all containers together."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.scorers import Scorer, Statistics
from prunekit.scorers.passed_by import Passage

Unit = tuple[str, int]  # group name and unit


@runtime_checkable
class Rescoring(Protocol):
    """A criterion that can score what is left when some blocks are gone."""

    greedy: bool

    def score_after(self, group: Group, statistics: Statistics, gone: tuple[Passage, ...]) -> Tensor: ...


class Order:
    """Blocks one after another, the least important of all first; equal scores go by their order in the model.

    Where the criterion is greedy, the others are scored again after every one that was taken.
    """

    def __init__(self, groups: Sequence[Group], scorer: Scorer, statistics: Statistics) -> None:
        self.groups, self.scorer, self.statistics = groups, scorer, statistics
        self.scores: dict[str, Tensor] = {g.name: _as_numbers(scorer.score(g, statistics)) for g in groups}

    def taken(self, gone: Collection[Unit], never: Collection[Unit], most: Mapping[str, int]) -> Iterator[Unit]:
        """The next blocks when ``gone`` are taken already and ``never`` stay; at most so many a group in all."""
        gone = list(gone)
        while True:
            unit = self._next(gone, never, most)
            if unit is None:
                return
            yield unit
            gone.append(unit)

    def _next(self, gone: Sequence[Unit], never: Collection[Unit], most: Mapping[str, int]) -> Unit | None:
        scores = self._scores_after(gone)
        free = [
            (float(scores[g.name][unit]), at, (g.name, unit))
            for at, g in enumerate(self.groups)
            if sum(name == g.name for name, _ in gone) < most[g.name]
            for unit in range(g.size)
            if (g.name, unit) not in gone and (g.name, unit) not in never
        ]
        return min(free)[2] if free else None

    def _scores_after(self, gone: Sequence[Unit]) -> Mapping[str, Tensor]:
        if not gone or not (isinstance(self.scorer, Rescoring) and self.scorer.greedy):
            return self.scores
        places = {g.name: g.passages for g in self.groups}
        paths = tuple(places[name][unit] for name, unit in gone)
        return {g.name: self.scorer.score_after(g, self.statistics, paths) for g in self.groups}


def _as_numbers(scores: Tensor) -> Tensor:
    return torch.nan_to_num(scores.detach().double().cpu(), nan=math.inf)


def scores_blocks(scorer: Scorer) -> bool:
    """Whether a criterion says something of whole blocks: its ``of_blocks`` tells."""
    return bool(getattr(scorer, "of_blocks", False))
