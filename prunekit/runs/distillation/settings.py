"""The settings of a distillation stage; ``stages.COMMON`` has their meaning and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Settings:
    """How a distillation stage runs."""

    epochs: int
    align_epochs: int
    steps: int
    batch: int
    accumulate: int
    lr: float
    lr_schedule: str
    clip: float
    penalty: float
    precision: str
    checkpointing: bool
    sharded: bool
    teacher_cache: str
    cache_gb: float
    save_minutes: float
    seed: int

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Settings:
        """The ones that matter here, out of all of a recipe's."""
        return cls(**{name: settings[name] for name in cls.__dataclass_fields__})

    @property
    def dtype(self) -> torch.dtype | None:
        """What products are computed in, where it is not the weights' own."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)

    @property
    def cache_bytes(self) -> int:
        return int(self.cache_gb * 2**30)
