"""Samples of one task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from prunekit.inputs.batching import Batch
from prunekit.samples.sequences import First, Skipped

if TYPE_CHECKING:  # recipes and checkpoints stand above the plug-ins, which bring or are given them as values
    pass


@dataclass(frozen=True)
class Samples:
    """Samples of one task, and how to turn them into what the pruned part reads.

    Attributes:
        items: the samples, of whatever type the plug-in's evaluators and exporters expect.
        encode: samples -> a batch for the pruned part, on the CPU: a tensor, e.g. float (B, 3, H, W), preprocessed, or
            tensors by the names of forward's arguments.
        generated: whether the samples were generated because no folder was given.
        skipped: what was left out so far, each once. It grows while samples are read: a truncated image is noticed when
            it is decoded.
    """

    items: Sequence[Any]
    encode: Callable[[Sequence[Any]], Batch]
    generated: bool = False
    skipped: list[Skipped] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.items)

    def first(self, count: int) -> Samples:
        """The first ``count`` samples, or all where there are fewer; they share ``skipped``."""
        return replace(self, items=First(self.items, count))

    def batch(self, indices: Sequence[int]) -> Batch:
        """The samples ``indices`` as one batch for the pruned part."""
        return self.encode([self.items[index] for index in indices])
