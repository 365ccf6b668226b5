"""Samples for models that no plug-in speaks for: generated inputs, or any folder of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.errors import DataError, RecipeError
from prunekit.inputs import generated, infer, tensors_in
from prunekit.inputs.batching import as_batch, joined_rows
from prunekit.samples.sequences import Checked, First, Lazy, Skipped, Sound
from prunekit.plugins.data import Dataset
from prunekit.samples.tasks import Samples
from prunekit.registry.building import Built
from prunekit.samples.splits import none_in, within

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, where a model does not say
VAL_STREAM = 1_000_003  # generated validation images come from another seed than the training images


def dataset_for(built: Built) -> Dataset:
    """The plug-in's data set for this model, else images of any kind."""
    entry, plugin = built.entry, built.plugin
    return plugin.datasets[entry.dataset] if entry and plugin and entry.dataset else images


def parts(data: Path | None, val: Path | None, *, split: bool) -> tuple[str, Path | None, str]:
    """The part of ``data`` to train on, and the folder and the part of it to validate on.

    With ``split`` both are of ``data``, and its test part belongs to neither. Raises RecipeError where that cannot be.
    """
    if not split:
        return "all", val, "all"
    if data is None or val is not None:
        raise RecipeError("split=true takes both parts from one folder", hint="give --data, and leave --val out")
    return "train", data, "val"


def images(
    model: nn.Module, folder: Path | None, split: str, count: int | None, seed: int, part: str = "all"
) -> Samples:
    """Images for a model that reads one (B, C, H, W) batch: from ``folder``, else generated with natural spectra.

    A model that reads several tensors is given generated ones by the names that it calls them, and no folder.

    Images are resized to the input size that the model states, and normalised as its ``pretrained_cfg`` says; the items
    are (3, H, W) in [0, 1]. Unreadable images are skipped: in training the next good one stands in, for validation
    every image is read once beforehand. ``part`` says which files are taken (``prunekit.samples.splits``). Raises DataError for
    a missing or empty folder and where no image can be read, and InputError where the model states no input.
    """
    example = infer(model)
    if folder is None:
        made = generated(example, count or 64, seed + (VAL_STREAM if split == "val" else 0))
        return Samples([as_batch(inputs) for inputs in made], joined_rows, generated=True)
    files = [file for file in image_files(folder) if within(part, file.name)]
    if not files:
        raise none_in(part, str(folder))
    given = list(tensors_in(example))
    shape = given[0].shape
    if len(shape) != 4 or len(given) > 1:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in given)
        raise DataError(f"the model reads inputs of shape {shapes}, not images", hint="leave the folder out")
    skipped: list[Skipped] = []
    found, names = _Pixels(files, (int(shape[2]), int(shape[3]))), [str(file) for file in files]
    items: Sequence[Tensor]
    if split == "val":
        items = Checked(found, names, skipped, count)
    else:
        items = Sound(found, names, skipped)
        items = items if count is None else First(items, count)
    return Samples(items, _normalised(model), skipped=skipped)


class _Pixels(Lazy[Tensor]):
    def __init__(self, files: Sequence[Path], size: tuple[int, int]) -> None:
        self.files, self.size = files, size

    def __len__(self) -> int:
        return len(self.files)

    def _get(self, index: int) -> Tensor:
        return _pixels(self.files[index], self.size)


def image_files(folder: Path) -> list[Path]:
    """The images of ``folder``, by name. Raises DataError where there is none."""
    if not folder.is_dir():
        raise DataError(f"no folder at {folder}", hint="give a folder of images")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"no images in {folder}", hint=f"it must hold {', '.join(SUFFIXES)} files")
    return files


def _normalised(model: nn.Module) -> Callable[[Sequence[Any]], Tensor]:
    config = getattr(model, "pretrained_cfg", None)
    stated = config if isinstance(config, Mapping) else {}
    mean = torch.tensor(stated.get("mean", MEAN), device="cpu").view(-1, 1, 1)
    std = torch.tensor(stated.get("std", STD), device="cpu").view(-1, 1, 1)

    return lambda images: torch.stack([(pixels - mean) / std for pixels in images])


def _pixels(file: Path, size: tuple[int, int]) -> Tensor:
    """(3, H, W) in [0, 1]."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(file) as image:
            resized = image.convert("RGB").resize((size[1], size[0]), Image.Resampling.BICUBIC)
    except Exception as error:  # decoders, and libraries that put theirs before Pillow's, raise what they like
        raise DataError(f"cannot read the image {file}: {error}", hint="it may be truncated; copy it again") from error
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
