"""What a plug-in may bring for ``prunekit eval``: whole models scored against what is known of the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import nn

from prunekit.samples.sequences import Skipped


@dataclass(frozen=True)
class Examination:
    """What ``prunekit eval`` was asked.

    Attributes:
        data: folder of annotated images, or a text.
        prompts: how models are asked, in the plug-in's own words; "" is its default.
        split: ``"all"``, ``"train"``, ``"val"`` or ``"test"``.
        images: at most so many, of a text windows; None is all.
        seed: of whatever is drawn.
    """

    data: Path
    prompts: str = ""
    split: str = "all"
    images: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Examined:
    """Figures by model, by how it was asked, by name; the trivial answers are rows too.

    Attributes:
        rows: a figure that nothing could be averaged for is None.
        counts: of what was scored and what was left out, by the names that the report gives them.
        shown: the figures that the table has, in its order, with NAME_low and NAME_high behind each where these are.
        title: what was scored, for people; ``remark`` is what they should know besides.
        skipped: samples that could not be used.
    """

    rows: Mapping[str, Mapping[str, Mapping[str, float | int | None]]]
    counts: Mapping[str, int]
    shown: tuple[str, ...]
    title: str
    remark: str = ""
    skipped: tuple[Skipped, ...] = ()


class Examiner(Protocol):
    """Scores whole models by one protocol. Models are built when their turn comes.

    ``progress`` is called with (model, done, total). Raises InputError and DataError.
    """

    def __call__(
        self,
        models: Mapping[str, Callable[[], nn.Module]],
        request: Examination,
        progress: Callable[[str, int, int], None],
    ) -> Examined: ...
