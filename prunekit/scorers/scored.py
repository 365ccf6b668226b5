"""Scores that were computed before: one scoring serves several sizes, or a scorer with statistics of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.errors import ScorerError
from prunekit.scorers.contract import Scorer
from prunekit.scorers.needs import NOTHING, Needs
from prunekit.scorers.statistics import Statistics


@dataclass(frozen=True, eq=False)
class Scored:
    """A scorer that has its scores already: (group.size,) by group name. ``scorer`` is where they came from."""

    needs: ClassVar[Needs] = NOTHING
    needs_samples: ClassVar[bool] = False

    scores: Mapping[str, Tensor] = field(repr=False)
    scorer: Scorer | None = None

    @classmethod
    def of(cls, scorer: Scorer, groups: Iterable[Group], statistics: Statistics) -> Scored:
        """The scores of ``groups``, computed now. Raises what the scorer raises."""
        return cls({group.name: scorer.score(group, statistics) for group in groups}, scorer)

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,) as it was computed. Raises ScorerError where the group was not among them."""
        if group.name not in self.scores:
            raise ScorerError(f"group {group.name} was not scored", where=group.name, hint="score every group first")
        return self.scores[group.name]
