"""One protocol for whatever can be prompted: the same images, the same prompts, the same scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Protocol as Seam

import numpy as np
from segment_anything.modeling import Sam
from torch import nn

from prunekit.errors import DataError, InputError
from prunekit.plugins import Examination, Examined
from prunekit.samples import Usable

from .data import MaskedImage, found_in
from .promptable import Promptable, Prompted, Trivial
from .promptable_hf import PromptedHF, family_of
from .prompts import Protocol, ask, parsed
from .scores import Marks, Masks, boundaries, iou, means

FIGURES = ("miou", "boundary_iou", "mask_iou", "small", "medium", "large")  # of the table
PROMPTS = "point,box"
TRIVIAL = "trivial"  # the filled box, or a disc round the point


class Images(Seam):
    """Samples in order, ``len`` of them or, where some cannot be used, fewer."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[MaskedImage]: ...


def real(sample: MaskedImage) -> tuple[MaskedImage, int]:
    """The annotations that have a mask at all, and the number of those that have none: nothing can point at them."""
    if sample.masks is None:
        raise DataError(f"{sample.name} comes without masks to score against", hint="use Folder(path, masks=True)")
    full = sample.masks.any((1, 2))
    kept = MaskedImage(sample.name, sample.image, sample.masks[full], sample.points[full], sample.boxes[full])
    return kept, int((~full).sum())


def examine(
    model: Promptable,
    samples: Images,
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
    left_out = 0
    for index, given in enumerate(islice(samples, limit)):
        sample, empty = real(given)
        left_out += empty
        if sample.masks is not None and len(sample.masks):
            answers = model.predict(sample.image, [ask(protocol, sample, seed) for protocol in protocols])
            for protocol, found in zip(protocols, _marked(answers, protocols, sample, boundary), strict=True):
                marks[protocol.name].append(found)
        if progress is not None:  # the total falls where samples turn out to be unusable
            progress(index + 1, len(samples) if limit is None else min(limit, len(samples)))
    if not any(marks.values()):
        raise DataError("nothing to score", hint="give at least one image with a mask that is not empty")
    return marks, left_out


def _marked(
    answers: Sequence[Masks], protocols: Sequence[Protocol], sample: MaskedImage, boundary: bool
) -> Iterator[Marks]:
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
    models: Mapping[str, Callable[[], nn.Module]], request: Examination, progress: Callable[[str, int, int], None]
) -> Examined:
    """Every model, one after another, and the trivial answers, on the same images with the same prompts.

    Images that cannot be used are left out and named in ``skipped``.
    Raises InputError for prompts or a split that are not known and DataError for the folder.
    """
    protocols = parsed(request.prompts or PROMPTS)
    found = found_in(request.data, "val", part=request.split)
    samples = Usable(found, found.names, skipped := list(found.skipped), request.images)
    rows: dict[str, Mapping[str, Mapping[str, float | int | None]]] = {}
    images = masks = empty = 0
    for name, build in [*models.items(), (TRIVIAL, None)]:
        answering: Promptable = Trivial() if build is None else prompted_by(build(), name)
        marks, empty = examine(answering, samples, protocols, request.seed, progress=partial(progress, name))
        rows[name] = {protocol: means(each) for protocol, each in marks.items()}
        first = next(iter(marks.values()))
        images, masks = len(first), sum(len(mark.iou) for mark in first)
    return Examined(
        rows,
        {"images": images, "masks": masks, "empty": empty},
        FIGURES,
        f"{masks} masks of {images} images",
        f"{empty} annotations without a mask left out" if empty else "",
        tuple(skipped),
    )


def prompted_by(model: nn.Module, name: str = "the model") -> Promptable:
    """A whole SAM, of segment_anything's classes or of transformers', as something that answers prompts.

    Raises InputError for other models.
    """
    if isinstance(model, Sam):
        return Prompted(model.eval())
    if family := family_of(model):
        return PromptedHF(model.eval(), family)
    raise InputError(f"{name} is a {type(model).__name__}, which takes no prompts", hint="give a whole SAM")
