"""The learning rate of a step, and the batches of a rank."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from prunekit.recipes.records import Training

PATIENCE, FACTOR = 3, 0.5  # of the plateau schedule, in epochs


@dataclass
class Rate:
    """The learning rate; the plateau schedule halves it when the loss of an epoch stops falling."""

    lr: float
    schedule: str
    total: int
    factor: float = 1.0
    best: float = math.inf
    bad: int = 0

    def __call__(self, step: int) -> float:
        if self.schedule == "cosine":
            warm = min(1.0, (step + 1) / max(1, self.total // 20))
            return self.lr * warm * 0.5 * (1 + math.cos(math.pi * step / self.total))
        return self.lr * self.factor

    def epoch_done(self, loss: float) -> None:
        if self.schedule != "plateau":
            return
        self.bad = 0 if loss < self.best else self.bad + 1
        self.best = min(self.best, loss)
        if self.bad > PATIENCE:
            self.factor, self.bad = self.factor * FACTOR, 0

    def state(self) -> dict[str, Any]:
        """JSON values; an infinite best is None."""
        found = asdict(self)
        return {**found, "best": None if self.best == math.inf else self.best}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Rate:
        return cls(**{**state, "best": math.inf if state["best"] is None else state["best"]})


def steps_in(count: int, settings: Training, ranks: int) -> int:
    """Batches of a stage over ``count`` samples, each of ``settings.batch`` samples on every rank."""
    whole = settings.epochs * math.ceil(count / (settings.batch * ranks))
    return min(settings.steps, whole) if settings.steps else whole


def batches(count: int, settings: Training, total: int, ranks: int) -> Iterator[list[int]]:
    """``total`` batches of indices over all ranks: a fresh order every pass over the samples, decided by the seed."""
    generator = torch.Generator().manual_seed(settings.seed)
    size, given = settings.batch * ranks, 0
    while given < total:
        order = torch.randperm(count, generator=generator, device="cpu").tolist()
        for start in range(0, count, size):
            if given < total:
                yield order[start : start + size]
                given += 1


def own_share(indices: list[int], settings: Training, rank: int) -> tuple[list[int], float]:
    """A rank's samples of a batch and what part of it they are; where there is none, one that counts nothing."""
    mine = indices[rank * settings.batch : (rank + 1) * settings.batch]
    return (mine, len(mine) / len(indices)) if mine else (indices[:1], 0.0)
