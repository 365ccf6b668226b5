"""Random: the control that every other criterion has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar
from zlib import crc32

import torch
from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.scorers.needs import NOTHING, Needs
from prunekit.scorers.statistics import Statistics


@dataclass(frozen=True)
class Random:
    """Uniform in [0, 1). Determined by the seed and the group's name, so the order of groups does not matter."""

    of_blocks: ClassVar[bool] = True
    needs: ClassVar[Needs] = NOTHING

    seed: int = 0

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64; the global RNG is not touched."""
        # One 32-bit number: the CPU generator of torch ignores the higher bits of a seed.
        generator = torch.Generator("cpu").manual_seed(crc32(f"{self.seed} {group.name}".encode()))
        return torch.rand(group.size, generator=generator, device="cpu", dtype=torch.float64)
