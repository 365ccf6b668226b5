"""What a plug-in may bring for people to look at: what a model does with single samples, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import nn

from prunekit.samples.tasks import Samples


@dataclass(frozen=True)
class Picture:
    """A PNG of one sample, what it shows, and figures on it, such as an IoU."""

    caption: str
    png: bytes
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Exhibit:
    """Pictures of one sample that are looked at side by side. ``name`` is the sample's."""

    name: str
    pictures: tuple[Picture, ...]


class Exhibitor(Protocol):
    """Shows on some of ``samples`` what the whole models ``before`` and ``after`` do; both are in evaluation mode."""

    def __call__(self, before: nn.Module, after: nn.Module, samples: Samples) -> Sequence[Exhibit]: ...
