"""Scores of every group that may go, on data that are given or generated."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from prunekit.coupling.groups import Group
from prunekit.coupling.structure import Structure
from prunekit.errors import ScorerError
from prunekit.inputs import Sample, as_samples, generated
from prunekit.planning.symmetry_check import SYMMETRY_MACS, is_meta, not_finite
from prunekit.scorers import Scorer, Statistics

logger = logging.getLogger(__name__)

GENERATED_SAMPLES, GENERATED_SAMPLES_SLOW = 8, 2  # generated inputs say little: a large model is not run on many


def scores_of(
    model: nn.Module,
    structure: Structure,
    chosen: Sequence[Group],
    scorer: Scorer,
    data: Iterable[Any] | None,
    seed: int,
    progress: Any = None,
) -> dict[str, Tensor]:
    """A score a unit, by group name; what ``scorer`` needs is drawn from ``data``, or generated with ``seed``."""
    samples: Sequence[Sample] = ()
    if data is not None:
        samples = list(as_samples(data, structure.inputs))
    elif getattr(scorer, "needs_samples", True):
        samples = _Generated(structure, seed)
    names = sorted({m.tensor for g in chosen for m in g.parameters})
    statistics = Statistics(model, samples, parameters=names, progress=progress)
    if not is_meta(model):
        _check_buffers(model, chosen)
        for name in names:  # a scorer that reads no weights would not notice one that is NaN
            statistics.parameter(name)
    try:
        return {g.name: scorer.score(g, statistics) for g in chosen}
    except (RuntimeError, NotImplementedError) as error:
        if is_meta(model):
            raise ScorerError(
                f"{scorer!r} reads weights, and the model is on the meta device and has none",
                hint="pass a scorer that reads none, such as prunekit.Random(seed=0), or build the model on a device",
            ) from error
        raise


def _check_buffers(model: nn.Module, chosen: Sequence[Group]) -> None:
    """Raises ScorerError for a buffer of a group, such as a running variance, that is not finite."""
    bad = set(not_finite(model))
    found = sorted({m.tensor for g in chosen for m in g.members if m.is_buffer and m.tensor in bad})
    if found:
        raise ScorerError(f"{found[0]} holds NaN or infinity", where=found[0], hint="check the checkpoint")


class _Generated(Sequence[Sample]):
    """Calibration samples that are made when a scorer first reads one; a notice says so."""

    def __init__(self, structure: Structure, seed: int) -> None:
        self._structure, self._seed = structure, seed
        self._count = GENERATED_SAMPLES if structure.cost().macs <= SYMMETRY_MACS else GENERATED_SAMPLES_SLOW
        self._made: list[Sample] | None = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if self._made is None:
            logger.warning("no data given: scoring on %d generated inputs; pass data= for better scores", len(self))
            made = generated(self._structure.inputs, self._count, self._seed)
            self._made = [Sample(i) for i in made]
        return self._made[index]
