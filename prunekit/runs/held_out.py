"""Samples to train on and samples to validate on: two folders, two parts of one, or what is generated."""

from __future__ import annotations

import logging
from pathlib import Path

from prunekit.errors import DataError
from prunekit.registry.building import Built
from prunekit.runs.image_data import dataset_for, parts
from prunekit.samples.tasks import Samples

NOT_VALIDATED = "metrics are of generated samples, not of the data: give --val FOLDER (prune: or --set split=true)"
logger = logging.getLogger(__name__)


def train_and_val(
    built: Built, data: Path | None, val: Path | None, counts: tuple[int | None, int], seed: int, *, split: bool
) -> tuple[Samples, Samples]:
    """``counts`` samples of each; None takes all that there are.

    With ``split`` both are parts of ``data``, and so they are without it where there is no ``val``, the model's entry
    holds out, and ``data`` have enough. Warns where validation says nothing about the data.

    Raises DataError for unusable folders, RecipeError for a ``split`` that cannot be.
    """
    entry = built.entry
    if entry is not None and entry.holds_out and data is not None and val is None:
        try:
            return _both(built, data, val, counts, seed, split=True)
        except DataError:
            if split:
                raise
    train, judged = _both(built, data, val, counts, seed, split=split)
    if judged.generated and not train.generated:
        logger.warning(NOT_VALIDATED)
    return train, judged


def _both(
    built: Built, data: Path | None, val: Path | None, counts: tuple[int | None, int], seed: int, *, split: bool
) -> tuple[Samples, Samples]:
    dataset = dataset_for(built)
    train_part, val_folder, val_part = parts(data, val, split=split)
    train = dataset(built.model, data, "train", counts[0], seed, train_part)
    return train, dataset(built.model, val_folder, "val", counts[1], seed, val_part)
