"""What a plug-in may bring for ``prunekit eval``: whole models scored against annotations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from torch import nn

from prunekit.samples.sequences import Skipped

if TYPE_CHECKING:  # recipes and checkpoints stand above the plug-ins, which bring or are given them as values
    pass


@dataclass(frozen=True)
class Examination:
    """What ``prunekit eval`` was asked.

    Attributes:
        data: folder of annotated images.
        prompts: how models are asked, in the plug-in's own words; "" is its default.
        split: ``"all"``, ``"train"``, ``"val"`` or ``"test"``.
        images: at most so many; None is all.
        seed: of whatever is drawn.
    """

    data: Path
    prompts: str = ""
    split: str = "all"
    images: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Examined:
    """Figures by model, by prompt, by name; the trivial answers are rows too.

    ``images`` and ``masks`` count what was scored, ``empty`` the annotations that were left out because their masks
    are empty; ``skipped`` are the images that could not be used. A figure that nothing could be averaged for is None.
    """

    rows: Mapping[str, Mapping[str, Mapping[str, float | int | None]]]
    images: int
    masks: int
    empty: int
    skipped: tuple[Skipped, ...] = ()


class Examiner(Protocol):
    """Scores whole models against annotations by one protocol. Models are built when their turn comes.

    ``progress`` is called with (model, done, total). Raises InputError and DataError.
    """

    def __call__(
        self,
        models: Mapping[str, Callable[[], nn.Module]],
        request: Examination,
        progress: Callable[[str, int, int], None],
    ) -> Examined: ...
