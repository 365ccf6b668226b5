"""Where a run is: what its finished stages gave, as values that can be kept and read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.surgery.cutting import apply
from prunekit.offloading import copied
from prunekit.plans.composition import compose
from prunekit.plans.contents import Plan
from prunekit.runs.distillation.state import State, random_states, restore_random
from prunekit.runs.goals import Shares
from prunekit.runs.telling import Told

PART, PREVIOUS, LOOP = "part.", "previous.", "loop."


@dataclass
class Position:
    """What the finished stages gave, and what the current one has begun with.

    Attributes:
        stage: number of the stage that is next or under way.
        plans, verified: of the cuts so far, in order.
        metrics: figures of evaluations by key; ``done``: a summary of every finished stage.
        doomed: units by group name that the penalty of the current stage draws to zero.
        loop: how far the training loop of the current stage is.
        told: what only people look at.
    """

    stage: int = 0
    plans: list[Plan] = field(default_factory=list)
    verified: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Mapping[str, float]] = field(default_factory=dict)
    done: list[dict[str, Any]] = field(default_factory=list)
    doomed: dict[str, list[int]] | None = None
    loop: State | None = None
    told: Told = field(default_factory=Told)

    @property
    def plan(self) -> Plan:
        """All cuts as one plan on the original."""
        return reduce(compose, self.plans)

    def values(self, shares: Shares) -> dict[str, Any]:
        """JSON values of everything but tensors."""
        return {
            "stage": self.stage,
            "plans": [plan.to_json() for plan in self.plans],
            "verified": self.verified,
            "metrics": {key: dict(figures) for key, figures in self.metrics.items()},
            "done": self.done,
            "doomed": self.doomed,
            "shares": shares.values(),
            "loop": None if self.loop is None else dict(self.loop.progress),
            "told": self.told.values(),
        }

    def tensors(self, part: nn.Module, previous: nn.Module | None) -> dict[str, Tensor]:
        """Weights of the part and of the teacher before the last cut, moments and random states; on the CPU."""
        found = {f"{PART}{name}": _held(value) for name, value in part.state_dict().items()}
        if previous is not None:
            found |= {f"{PREVIOUS}{name}": _held(value) for name, value in previous.state_dict().items()}
        moments = random_states() if self.loop is None else self.loop.tensors
        return found | {f"{LOOP}{name}": value for name, value in moments.items()}

    @classmethod
    def of(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Position:
        """Inverse of ``values`` and of the loop's share of ``tensors``; puts torch's random states back."""
        moments = {name.removeprefix(LOOP): value for name, value in tensors.items() if name.startswith(LOOP)}
        restore_random(moments)
        return cls(
            stage=values["stage"],
            plans=[Plan.from_json(text) for text in values["plans"]],
            verified=values["verified"],
            metrics=values["metrics"],
            done=values["done"],
            doomed=values["doomed"],
            loop=None if values["loop"] is None else State(values["loop"], moments),
            told=Told.of(values.get("told", {})),
        )

    def restore(self, part: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Cuts ``part``, which is the original, and gives it the kept weights."""
        _become(part, self.plans, tensors, PART)

    def restore_previous(self, previous: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Makes ``previous``, which is a copy of the original, the teacher as it was before the last cut."""
        _become(previous, self.plans[:-1], tensors, PREVIOUS)


def _become(model: nn.Module, plans: list[Plan], tensors: Mapping[str, Tensor], prefix: str) -> None:
    if plans:
        apply(model, reduce(compose, plans))
    kept = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    model.load_state_dict(kept, strict=True)


def _held(value: Tensor) -> Tensor:
    return copied(value.detach().to("cpu").contiguous())
