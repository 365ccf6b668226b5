"""Damage: how far the outputs move when a block is passed by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.errors import ScorerError
from prunekit.modules.setting_aside import Passage
from prunekit.scorers.needs import Needs
from prunekit.scorers.statistics import Statistics


@dataclass(frozen=True)
class Damage:
    """I = distance between the outputs of the model with the block passed by and as it is, on data and without labels.

    Args:
        distance: ``kl``, KL divergence of softmax distributions in nats; ``mse``, squared error relative to the
            squared values; ``auto``, the first for what a model returns as ``logits``, the second for anything else.
        greedy: whether the blocks that are left are measured again after every one that goes: as many times the passes
            as blocks go, and a better set where blocks stand in for one another.
        samples: at most so many calibration samples.

    Of whole blocks only (roles ``depth.*``). Dropping blocks by what their absence does to the loss is the criterion
    of Shortened LLaMA (Kim et al. 2024, arXiv 2402.02834), here towards the model itself.
    """

    of_blocks: ClassVar[bool] = True
    needs: ClassVar[Needs] = Needs("inputs", "one forward pass a sample and block")

    distance: Literal["auto", "kl", "mse"] = "auto"
    greedy: bool = False
    samples: int | None = None

    def __post_init__(self) -> None:
        if self.distance not in ("auto", "kl", "mse"):
            raise ScorerError(f"{self.distance!r} is no distance", where="distance", hint="one of auto, kl, mse")

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64. Raises ScorerError for units of a width."""
        return self.score_after(group, statistics, ())

    def score_after(self, group: Group, statistics: Statistics, gone: tuple[Passage, ...]) -> Tensor:
        """The same where the blocks and branches ``gone`` are passed by already; infinite for these."""
        places = places_of(group, type(self).__name__)
        left = [path for path in places if path not in gone]
        found = dict(zip(left, statistics.damages([(*gone, path) for path in left], self), strict=True))
        return torch.tensor([found.get(path, torch.inf) for path in places], dtype=torch.float64, device="cpu")


def places_of(group: Group, criterion: str) -> tuple[Passage, ...]:
    """The blocks or branches. Raises ScorerError for a width."""
    if not group.passages:
        raise ScorerError(
            f"{criterion} measures whole blocks and says nothing of single units",
            where=group.name,
            hint='pass roles=["depth.block"], or another criterion for widths',
        )
    return group.passages
