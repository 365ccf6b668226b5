"""The order in which blocks go: by a criterion's scores, of all containers together."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.modules.setting_aside import Passage
from prunekit.removal.covering import Cover, Unit
from prunekit.roles import EXPERT_IN_LIST
from prunekit.scorers import Random, Scorer, Statistics
from prunekit.scorers.needs import EXPERTS


@runtime_checkable
class Rescoring(Protocol):
    """A criterion that can score what is left when some blocks are gone."""

    greedy: bool

    def score_after(self, group: Group, statistics: Statistics, gone: tuple[Passage, ...]) -> Tensor: ...


class Order:
    """Blocks one after another, the least important of all first; equal scores go by their order in the model.

    Where the criterion is greedy, the others are scored again after every one that was taken. Where blocks stand
    against branches, which are a part of them, a score is held against what goes; chance is left as it falls.
    """

    def __init__(self, groups: Sequence[Group], scorer: Scorer, statistics: Statistics, cover: Cover) -> None:
        self.groups, self.scorer, self.statistics, self.cover = groups, scorer, statistics, cover
        self.saved = {} if isinstance(scorer, Random) else cover.saved
        self.scores: dict[str, Tensor] = {g.name: _as_numbers(scorer.score(g, statistics)) for g in groups}

    def taken(self, gone: Collection[Unit], never: Collection[Unit], most: Mapping[str, int]) -> Iterator[Unit]:
        """The next units when ``gone`` are taken already and ``never`` stay; at most so many a group in all.

        What goes along with a unit is gone too, and counts.
        """
        gone = list(gone)
        while True:
            unit = self._next(gone, never, most)
            if unit is None:
                return
            yield unit
            gone.append(unit)

    def last(
        self, gone: Sequence[Unit], never: Collection[Unit], most: Mapping[str, int], ends: Callable[[Unit], bool]
    ) -> Unit | None:
        """Of the next units that end it the one of the least score: what more it would spare is not asked for."""
        ending = [(score, at, unit) for score, at, unit in self._free(gone, never, most) if ends(unit)]
        return min(ending)[2] if ending else None

    def _next(self, gone: Sequence[Unit], never: Collection[Unit], most: Mapping[str, int]) -> Unit | None:
        free = self._free(gone, never, most)
        held = [(score / max(self.saved.get(unit, 1.0), 1.0), at, unit) for score, at, unit in free]
        return min(held)[2] if held else None

    def _free(
        self, gone: Sequence[Unit], never: Collection[Unit], most: Mapping[str, int]
    ) -> list[tuple[float, int, Unit]]:
        """Units that may go next: score, place of their group, and which."""
        scores, closed = self._scores_after(gone), self.cover.closed(gone)
        return [
            (float(scores[g.name][unit]), at, (g.name, unit))
            for at, g in enumerate(self.groups)
            if sum(name == g.name for name, _ in closed) < most[g.name]
            for unit in range(g.size)
            if (g.name, unit) not in closed and (g.name, unit) not in never
            if self.cover.admits((g.name, unit), closed)
        ]

    def _scores_after(self, gone: Sequence[Unit]) -> Mapping[str, Tensor]:
        if not gone or not (isinstance(self.scorer, Rescoring) and self.scorer.greedy):
            return self.scores
        places = {g.name: g.passages for g in self.groups}
        paths = tuple(places[name][unit] for name, unit in self.cover.outermost(gone))
        return {g.name: self.scorer.score_after(g, self.statistics, paths) for g in self.groups}


def _as_numbers(scores: Tensor) -> Tensor:
    return torch.nan_to_num(scores.detach().double().cpu(), nan=math.inf)


def scores_depth(scorer: Scorer, roles: Collection[str]) -> bool:
    """Whether a criterion says something of units of these roles of depth.

    Of whole blocks where its ``of_blocks`` tells so; of experts, where there is nothing else, one that measures them.
    """
    of_blocks = bool(getattr(scorer, "of_blocks", False))
    return of_blocks or (set(roles) == {EXPERT_IN_LIST} and getattr(scorer, "needs", None) == EXPERTS)
