"""How many layers a configuration builds: the entries that count them, found by what the class builds from others."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from prunekit_hf.blueprint import Entry, Number, built, changed, entries

logger = logging.getLogger(__name__)

BUILDS = 40  # configurations that are built at most


def layer_edits(model: PreTrainedModel) -> Mapping[Entry, Number]:
    """Entries, and their new values, with which the class builds tensors of the very names that ``model`` has.

    Empty where it does so as it is, or where none is found. An entry counts layers if a lower number in it brings the
    class nearer; those of an encoder and a decoder are found one after the other.
    """
    wanted = tensor_names(model)
    edits: dict[Entry, Number] = {}
    nearest = _distance(model, edits, wanted)
    builds = 0
    while nearest != 0:
        best: tuple[float, dict[Entry, Number]] | None = None
        for entry, value in _lower(model, edits):
            builds += 1
            tried = {**edits, entry: value}
            apart = _distance(model, tried, wanted)
            if apart < (nearest if best is None else best[0]):
                best = apart, tried
            if apart == 0 or builds == BUILDS:
                break
        if best is None or builds == BUILDS:
            return best[1] if best is not None and best[0] == 0 else {}
        nearest, edits = best
    return edits


def tensor_names(model: nn.Module) -> set[str]:
    """Of all parameters and buffers."""
    return {name for name, _ in [*model.named_parameters(), *model.named_buffers()]}


def _distance(model: PreTrainedModel, edits: Mapping[Entry, Number], wanted: set[str]) -> float:
    """How many names the class builds too many or too few; infinite where it refuses."""
    try:
        return len(tensor_names(built(type(model), changed(model.config, edits))) ^ wanted)
    except Exception as error:  # the class refuses these numbers, in its own words
        logger.debug("%s refuses %s: %s", type(model).__name__, dict(edits), error)
        return float("inf")


def _lower(model: nn.Module, edits: Mapping[Entry, Number]) -> Iterator[tuple[Entry, int]]:
    """Whole numbers of the configuration and what they may have become: the lengths of lists of modules."""
    config: PreTrainedConfig = model.config  # type: ignore[assignment]
    lengths = {len(module) for module in model.modules() if isinstance(module, (nn.ModuleList, nn.Sequential))}
    found = [
        (value - length, entry, length)
        for entry, value in entries(config)
        if entry not in edits and type(value) is int
        for length in lengths
        if 0 < length < value
    ]
    yield from ((entry, length) for _, entry, length in sorted(found, key=lambda each: each[0]))
