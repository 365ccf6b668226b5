"""What a plug-in brings, and how plug-ins are found: one frozen ``Plugin`` per entry point of a group."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from prunekit.lazy import First, Skipped

if TYPE_CHECKING:  # recipes and checkpoints stand above the plug-ins, which bring or are given them as values
    from prunekit.checkpoint import Bundle
    from prunekit.recipes.stages import Recipe
    from prunekit.scorers import Scorer

GROUP = "prunekit.plugins"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Samples:
    """Images of one task, and how to turn them into what the pruned part reads.

    Attributes:
        items: the samples, of whatever type the plug-in's evaluators and exporters expect.
        encode: samples -> a batch for the pruned part, e.g. float (B, 3, H, W), preprocessed, on the CPU.
        generated: whether the samples were generated because no folder was given.
        skipped: what was left out so far, each once. It grows while samples are read: a truncated image is noticed when
            it is decoded.
    """

    items: Sequence[Any]
    encode: Callable[[Sequence[Any]], Tensor]
    generated: bool = False
    skipped: list[Skipped] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.items)

    def first(self, count: int) -> Samples:
        """The first ``count`` samples, or all where there are fewer; they share ``skipped``."""
        return replace(self, items=First(self.items, count))

    def batch(self, indices: Sequence[int]) -> Tensor:
        """The samples ``indices`` as one batch for the pruned part."""
        return self.encode([self.items[index] for index in indices])


class Dataset(Protocol):
    """Yields samples for a model: from ``folder``, or generated where it is None.

    ``split`` is ``"train"`` or ``"val"``; ``count`` bounds the samples, None asks for all of a folder. Of a folder,
    only the files of ``part`` are read: ``"train"``, ``"val"``, ``"test"`` (``prunekit.splits``), or ``"all"``.
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


@dataclass(frozen=True)
class Compared:
    """One output of a written model beside the pruned model's, on the same input.

    Attributes:
        name: which output, and of which file.
        difference: the greatest absolute difference.
        largest: the greatest absolute value that the pruned model gave.
    """

    name: str
    difference: float
    largest: float


class Format(Protocol):
    """Writes a pruned model into ``folder`` for use elsewhere, reads it back, and says how far its outputs are off.

    An exporter pictures a finished run; a format is what ``prunekit export --to`` names, and needs no run.
    ``precisions`` are those asked for, of ``"fp32"``, ``"fp16"`` and ``"int8"``. Raises ExportError for what the format
    cannot hold; whatever it raises, the caller removes ``folder``.
    """

    def __call__(self, bundle: Bundle, folder: Path, precisions: Sequence[str]) -> Sequence[Compared]: ...


@dataclass(frozen=True)
class Request:
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
        request: Request,
        progress: Callable[[str, int, int], None],
    ) -> Examined: ...


@dataclass(frozen=True)
class ModelEntry:
    """One model that a plug-in can build.

    Attributes:
        factory: (checkpoint path or None) -> the whole model. Raises CheckpointError.
        part: path of the submodule that recipes prune and distil; "" is the whole model.
        rest: runs everything outside ``part`` once on an example, so that it can be counted; None if there is none.
        dataset, evaluator, exporters, formats: names in the plug-in's tables; "" where the generic ones of prunekit do.
        examiner: a name too; "" where ``prunekit eval`` is not for this model.
        generated: recipe settings that suit this model when its data are generated rather than given.
        lean: a context in which a module gives the same up to rounding, for less time or memory; recipes score, train
            and evaluate in it. None where there is nothing to gain.
    """

    factory: Callable[[Path | None], nn.Module]
    part: str = ""
    rest: Callable[[nn.Module], object] | None = None
    dataset: str = ""
    evaluator: str = ""
    examiner: str = ""
    exporters: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    generated: Mapping[str, Any] = field(default_factory=dict)
    lean: Callable[[nn.Module], AbstractContextManager[None]] | None = None


@dataclass(frozen=True)
class Foreign:
    """Folders of another library that hold a whole model, so that it can be scored beside prunekit's own.

    Attributes:
        recognises: whether a folder is one.
        build: the model in it. Raises CheckpointError.
        examiner: its name in the plug-in's table.
    """

    recognises: Callable[[Path], bool]
    build: Callable[[Path], nn.Module]
    examiner: str


@dataclass(frozen=True)
class Plugin:
    """Everything that one distribution adds, by name. Models are asked for as ``<plug-in name>:<model name>``.

    ``roles`` maps a role name to a sentence about it, for people. ``exporters`` maps a file name to the writer of a
    picture about a run, ``formats`` maps what ``prunekit export --to`` takes to its writer. ``foreign`` maps a library
    to its folders.
    """

    name: str
    models: Mapping[str, ModelEntry] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    scorers: Mapping[str, Callable[[], Scorer]] = field(default_factory=dict)
    datasets: Mapping[str, Dataset] = field(default_factory=dict)
    evaluators: Mapping[str, Evaluator] = field(default_factory=dict)
    examiners: Mapping[str, Examiner] = field(default_factory=dict)
    exporters: Mapping[str, Exporter] = field(default_factory=dict)
    formats: Mapping[str, Format] = field(default_factory=dict)
    foreign: Mapping[str, Foreign] = field(default_factory=dict)


def discover() -> tuple[Plugin, ...]:
    """Every installed plug-in that loads, by name. One that does not is named in a warning and left out."""
    return load_all(tuple(sorted(entry_points(group=GROUP), key=lambda point: point.name)))


@cache
def load_all(points: tuple[EntryPoint, ...]) -> tuple[Plugin, ...]:
    """The plug-ins behind ``points``; cached, so that a broken one warns once a process."""
    found = []
    for point in points:
        try:
            plugin = point.load()
        except Exception as error:  # whatever a plug-in raises while it loads must not stop the others
            logger.warning("plug-in %r (%s) is broken and left out: %r", point.name, point.value, error)
            continue
        if isinstance(plugin, Plugin):
            found.append(plugin)
        else:
            logger.warning("plug-in %r (%s) is left out: it is not a prunekit.plugins.Plugin", point.name, point.value)
    return tuple(found)
