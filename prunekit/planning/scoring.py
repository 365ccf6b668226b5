"""Scores of every group that may go, on data that are given or generated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.coupling.groups import Group
from prunekit.coupling.structure import Structure
from prunekit.errors import PrunekitError, ScorerError
from prunekit.inputs import Inputs, Sample
from prunekit.inputs.per_rank import ALONE, Alone, Meeting
from prunekit.modules.soundness import all_finite
from prunekit.modules.walk import state_tensors
from prunekit.planning.calibration_inputs import check_runs, generated_for, generated_run, samples_for
from prunekit.planning.finite_runs import refuse_not_finite
from prunekit.planning.symmetry_check import SYMMETRY_MACS, is_meta
from prunekit.registry import criterion
from prunekit.scorers import Magnitude, Scorer, Statistics
from prunekit.scorers.calibrate import checksum
from prunekit.scorers.needs import WEIGHTS

logger = logging.getLogger(__name__)

GENERATED_SAMPLES, GENERATED_SAMPLES_SLOW = 8, 2  # generated inputs say little: a large model is not run on many
# What a forward or backward pass of somebody's model raises.
_OF_A_MODEL = (ScorerError, RuntimeError, AssertionError, LookupError, TypeError, ValueError, AttributeError)


def scored_by(
    given: Scorer | str | None,
    model: nn.Module,
    structure: Structure,
    chosen: Sequence[Group],
    data: Iterable[Any] | None,
    seed: int,
    progress: Any = None,
) -> tuple[Scorer, dict[str, Tensor]]:
    """The criterion that was asked for and its scores; where none was, one that sees inputs, if the model lets it.

    Chosen by the table of defaults in docs/benchmarks.md. A model that cannot be differentiated is scored by
    ``Magnitude()``, and the log says why.
    """
    scorer = criterion(given)
    shared = isinstance(data, Meeting)
    held = data if data is None or shared else list(samples_for(model, data, structure.inputs))
    heard = None if progress is None else _Heard(progress)
    try:
        return scorer, scores_of(model, structure, chosen, scorer, held, seed, heard)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the model's own code, and the listener's, may raise anything
        if is_meta(model) or shared or (heard is not None and heard.raised is error):  # no rank goes a way of its own
            raise
        if held is not None:
            check_runs(model, held)
            refuse_not_finite(model, held)
        elif not generated_run(model, structure.inputs, GENERATED_SAMPLES, seed):
            logger.warning("the model does not run on all generated inputs: it is scored on the example inputs alone")
            return scored_by(given, model, structure, chosen, [Sample(structure.inputs)], seed, progress)
        else:
            drawn = generated_for(model, structure.inputs, GENERATED_SAMPLES, seed)
            refuse_not_finite(model, [Sample(inputs) for inputs in drawn])
        why = next(iter(str(error).splitlines()), type(error).__name__)
        if given is not None and isinstance(error, NotImplementedError) and not isinstance(error, PrunekitError):
            raise ScorerError(
                f"{type(scorer).__name__} cannot score this model, which runs without gradients: {why}",
                hint="choose a criterion that reads none, such as magnitude or wanda",
            ) from error
        if given is not None or not isinstance(error, _OF_A_MODEL):
            raise
        logger.warning("no gradients to score by (%s): magnitude decides; pass scorer= to choose another", why)
    by_weights = Magnitude()
    return by_weights, scores_of(model, structure, chosen, by_weights, None, seed)


class _Heard:
    """A listener, and the error that it raised: it says nothing of the model, and ends the call."""

    def __init__(self, listener: Callable[[int, int], object]) -> None:
        self._listener = listener
        self.raised: Exception | None = None

    def __call__(self, done: int, total: int) -> None:
        try:
            self._listener(done, total)
        except Exception as error:
            self.raised = error
            raise


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
    statistics = statistics_of(model, structure, chosen, scorer, data, seed, progress)
    real = not is_meta(model)
    # a scorer that reads no weights would not notice one that is NaN; of others only what they left out is looked at
    later = real and getattr(scorer, "needs", None) == WEIGHTS
    if real:
        _check_buffers(model, chosen)
        _refuse_unsound(statistics, () if later else statistics.names)
    try:
        found = {g.name: scorer.score(g, statistics) for g in chosen}
        _refuse_unsound(statistics, statistics.names if later else ())
        return found
    except Exception as error:
        _refuse_unsound(statistics, statistics.names if later else ())  # the first that is not finite is named instead
        if is_meta(model) and isinstance(error, RuntimeError):
            raise ScorerError(
                f"{scorer!r} reads weights, and the model is on the meta device and has none",
                hint="pass a scorer that reads none, such as prunekit.Random(seed=0), or build the model on a device",
            ) from error
        raise


def _refuse_unsound(statistics: Statistics, names: Iterable[str]) -> None:
    """Raises ScorerError for the first of these weights that is not finite."""
    for name in names:
        statistics.parameter(name)


def statistics_of(
    model: nn.Module,
    structure: Structure,
    chosen: Sequence[Group],
    scorer: Scorer,
    data: Iterable[Any] | None,
    seed: int,
    progress: Any = None,
) -> Statistics:
    """What ``scorer`` may ask for, about parameters of ``chosen``, on ``data`` or on inputs generated with ``seed``."""
    names = sorted({m.tensor for g in chosen for m in g.parameters})
    samples: Sequence[Sample] = ()
    ranks: Alone = ALONE
    if isinstance(data, Meeting):
        ranks, samples = data, list(samples_for(model, data.samples, structure.inputs))
        data.same("the number of samples", len(samples))
        data.same("weights", {name: checksum(Inputs((p.detach(),))) for name, p in model.named_parameters()})
    elif data is not None:
        samples = list(samples_for(model, data, structure.inputs))
    elif getattr(scorer, "needs_samples", True):
        samples = _Generated(model, structure, seed)
    return Statistics(model, samples, parameters=names, progress=progress, groups=chosen, ranks=ranks)


@torch.no_grad()
def _check_buffers(model: nn.Module, chosen: Sequence[Group]) -> None:
    """Raises ScorerError for a buffer of a group, such as a running variance, that is not finite."""
    named = {m.tensor for g in chosen for m in g.members if m.is_buffer}
    state = state_tensors(model) if named else {}
    found = sorted(name for name in named if not all_finite(state[name]))
    if found:
        raise ScorerError(f"{found[0]} holds NaN or infinity", where=found[0], hint="check the checkpoint")


class _Generated(Sequence[Sample]):
    """Calibration samples that are made when a scorer first reads one; a notice says so."""

    def __init__(self, model: nn.Module, structure: Structure, seed: int) -> None:
        self._model, self._structure, self._seed = model, structure, seed
        self._count = GENERATED_SAMPLES if structure.cost().macs <= SYMMETRY_MACS else GENERATED_SAMPLES_SLOW
        self._made: list[Sample] | None = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if self._made is None:
            logger.warning("no data given: scoring on %d generated inputs; pass data= for better scores", len(self))
            made = generated_for(self._model, self._structure.inputs, self._count, self._seed)
            self._made = [Sample(i) for i in made]
        return self._made[index]
