"""What a run says while it goes, and what it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from prunekit.plans.contents import Plan
from prunekit.samples.tasks import Samples


@dataclass(frozen=True)
class Event:
    """Progress of one stage: ``done`` of ``total`` in ``unit``, and figures worth showing."""

    stage: int
    title: str
    done: int
    total: int
    unit: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


class Listener(Protocol):
    """Hears of every step that a recipe makes."""

    def __call__(self, event: Event) -> None: ...


@dataclass(frozen=True)
class Run:
    """A finished recipe. It can be given to ``prunekit.save``.

    Attributes:
        model: the whole model, slimmed; the object that was given.
        before: a copy of the whole model as it was.
        plan: of ``part``, from the original to what it is now.
        report: JSON values: counts, metrics, widths, verification, settings.
        val: the samples that were evaluated.
        spec, options, part: how to build the original again, and which submodule the plan is about.
        story: JSON values that the folder's page shows beside the report: groups, scores about the cut, losses.
    """

    model: nn.Module
    before: nn.Module
    plan: Plan
    report: Mapping[str, Any]
    val: Samples
    spec: str
    options: Mapping[str, Any]
    part: str
    story: Mapping[str, Any] = field(default_factory=dict)
