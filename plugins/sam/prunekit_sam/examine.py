"""One protocol for whatever can be prompted: the same images, the same prompts, the same scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from segment_anything.modeling import Sam
from torch import nn

from prunekit.errors import DataError, InputError
from prunekit.plugins import Examined, Request

from .data import Folder, Sample
from .promptable import Promptable, Prompted, Trivial
from .prompts import Protocol, ask, parsed
from .scores import Marks, Masks, boundaries, iou, means
from .splits import within

TRIVIAL = "trivial"  # the filled box, or a disc round the point


class Chosen(Sequence[Sample]):
    """The images of an SA-1B folder that belong to a split, at most ``limit``, decoded one by one."""

    def __init__(self, folder: Folder, split: str, limit: int | None = None) -> None:
        self._folder = folder
        self._kept = [i for i, file in enumerate(folder.images) if within(split, file.name)][:limit]

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._folder[i] for i in self._kept[index]]
        return self._folder[self._kept[index]]


def real(sample: Sample) -> tuple[Sample, int]:
    """The annotations that have a mask at all, and the number of those that have none: nothing can point at them."""
    if sample.masks is None:
        raise DataError(f"{sample.name} comes without masks to score against", hint="use Folder(path, masks=True)")
    full = sample.masks.any((1, 2))
    kept = Sample(sample.name, sample.image, sample.masks[full], sample.points[full], sample.boxes[full])
    return kept, int((~full).sum())


def examine(
    model: Promptable,
    samples: Sequence[Sample],
    protocols: Sequence[Protocol],
    seed: int = 0,
    *,
    limit: int | None = None,
    boundary: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Mapping[str, list[Marks]], int]:
    """The marks of the first ``limit`` images by every protocol, and how many annotations had no mask.

    Annotations without a mask are left out, and so are images without any. Without ``boundary`` boundary IoU is not
    computed and left at 0.
    Raises DataError where nothing is left to score.
    """
    marks: dict[str, list[Marks]] = {protocol.name: [] for protocol in protocols}
    skipped = 0
    total = len(samples) if limit is None else min(limit, len(samples))
    for index in range(total):
        sample, empty = real(samples[index])
        skipped += empty
        if sample.masks is not None and len(sample.masks):
            answers = model.predict(sample.image, [ask(protocol, sample, seed) for protocol in protocols])
            for protocol, found in zip(protocols, _marked(answers, protocols, sample, boundary), strict=True):
                marks[protocol.name].append(found)
        if progress is not None:
            progress(index + 1, total)
    if not any(marks.values()):
        raise DataError("nothing to score", hint="give at least one image with a mask that is not empty")
    return marks, skipped


def _marked(answers: Sequence[Masks], protocols: Sequence[Protocol], sample: Sample, boundary: bool) -> Iterator[Marks]:
    assert sample.masks is not None
    edges = boundaries(sample.masks) if boundary else None
    share = sample.masks.mean((1, 2))
    for candidates, protocol in zip(answers, protocols, strict=True):
        every = np.stack([iou(candidates[:, c], sample.masks) for c in range(candidates.shape[1])], 1)
        best = every.argmax(1) if protocol.kind == "multimask" else np.zeros(len(every), int)
        rows = np.arange(len(every))
        near = np.zeros(len(every)) if edges is None else iou(boundaries(candidates[rows, best]), edges)
        yield Marks(every[rows, best], near, share)


def compared(
    models: Mapping[str, Callable[[], nn.Module]], request: Request, progress: Callable[[str, int, int], None]
) -> Examined:
    """Every model, one after another, and the trivial answers, on the same images with the same prompts.

    Raises InputError for prompts or a split that are not known and DataError for the folder.
    """
    protocols = parsed(request.prompts)
    samples = Chosen(Folder(request.data), request.split, request.images)
    if not samples:
        raise DataError(f"no image of {request.data} is in the split {request.split!r}", hint="--split all")
    rows: dict[str, Mapping[str, Mapping[str, float | int | None]]] = {}
    images = masks = skipped = 0
    for name, build in [*models.items(), (TRIVIAL, None)]:
        answering: Promptable = Trivial() if build is None else _prompted(name, build())
        marks, skipped = examine(answering, samples, protocols, request.seed, progress=partial(progress, name))
        rows[name] = {protocol: means(found) for protocol, found in marks.items()}
        first = next(iter(marks.values()))
        images, masks = len(first), sum(len(mark.iou) for mark in first)
    return Examined(rows, images, masks, skipped)


def _prompted(name: str, model: nn.Module) -> Prompted:
    if not isinstance(model, Sam):
        raise InputError(f"{name} is a {type(model).__name__}, which takes no prompts", hint="give a whole SAM")
    return Prompted(model.eval())
