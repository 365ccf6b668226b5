"""What a plug-in may bring about data: samples, figures on them and pictures of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from torch import nn

if TYPE_CHECKING:  # recipes and checkpoints stand above the plug-ins, which bring or are given them as values
    pass
from prunekit.samples.tasks import Samples


class Dataset(Protocol):
    """Yields samples for a model: from ``folder``, or generated where it is None.

    ``split`` is ``"train"`` or ``"val"``; ``count`` bounds the samples, None asks for all of a folder. Of a folder,
    only the files of ``part`` are read: ``"train"``, ``"val"``, ``"test"`` (``prunekit.samples.splits``), or ``"all"``.
    Samples that cannot be used are left out and noted in ``Samples.skipped``. Raises DataError where none can.
    """

    def __call__(
        self, model: nn.Module, /, folder: Path | None, split: str, count: int | None, seed: int, part: str = "all"
    ) -> Samples: ...


class Evaluator(Protocol):
    """Scores a whole model on samples: metric name -> value, higher is better. The first metric is the main one.

    ``progress`` is called with (done, total).
    """

    def __call__(
        self, model: nn.Module, samples: Samples, progress: Callable[[int, int], None]
    ) -> Mapping[str, float]: ...


class Exporter(Protocol):
    """Writes one file about a finished run to ``path``; the whole models before and after are in evaluation mode."""

    def __call__(self, before: nn.Module, after: nn.Module, samples: Samples, path: Path) -> None: ...
