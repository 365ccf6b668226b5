"""Block influence: how far a block turns the stream that passes it (ShortGPT)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.scorers.damage import places_of
from prunekit.scorers.needs import FORWARD, Needs
from prunekit.scorers.statistics import Statistics


@dataclass(frozen=True)
class BlockInfluence:
    """I = 1 - E[cos(x_in, x_out)] over tokens, x the stream (Men et al. 2024, ShortGPT, arXiv 2403.03853, equation 1).

    Of whole blocks only (roles ``depth.*``). One pass a sample for all blocks; it does not see what becomes of the
    difference behind the block. Maps of a convolutional model are compared as a whole.
    """

    of_blocks: ClassVar[bool] = True
    needs: ClassVar[Needs] = FORWARD

    samples: int | None = None

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64. Raises ScorerError for units of a width."""
        places = places_of(group, type(self).__name__)
        found = statistics.influences(places, self.samples)
        return torch.tensor([found[path] for path in places], dtype=torch.float64, device="cpu")
