"""The one call, and its steps: trace, plan, apply, prune."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from prunekit.coupling.structure import Structure
from prunekit.errors import PlanError
from prunekit.inputs import infer, normalise
from prunekit.modules.wrappers import eager, unwrap
from prunekit.operators import TABLE, Operator
from prunekit.options.schedules import Schedule
from prunekit.planning.drafting import Draft, Request, Verify, draft
from prunekit.planning.iteration import Done, Iteration, OnStep, cut_in_steps
from prunekit.planning.symmetry_check import Symmetry
from prunekit.plans.contents import Plan
from prunekit.quantities.latency_table import LatencyTable
from prunekit.quantities.limits import Target
from prunekit.registry.rules import coupled
from prunekit.scorers import Scorer
from prunekit.scorers.normalisers import Normaliser
from prunekit.selection import How
from prunekit.selection.pools import Ranking
from prunekit.selection.ratio import Align, Ratio, Rounding
from prunekit.surgery.cutting import apply
from prunekit.surgery.refitting import Compensation
from prunekit.tracing.collector import paused_collector
from prunekit.tracing.recorder import record

__all__ = ["Report", "Result", "apply", "plan", "prune", "trace"]


@dataclass(frozen=True)
class Report:
    """What pruning did. Counts before and after; ``verify`` says which checks ran and what they found.

    ``latency`` is there where a target limits it, in seconds: measured ``before``, ``predicted`` for the pruned model
    and measured ``after`` on it, all on the example inputs.
    """

    params: dict[str, int]
    macs: dict[str, int]
    layer_macs: dict[str, int]
    memory: dict[str, int]
    verify: dict[str, Any]
    scorer: str
    ratio: Any
    target: Any
    notes: tuple[str, ...]
    seconds: float
    latency: dict[str, float] | None = None


@dataclass(frozen=True, eq=False)
class Result:
    """A pruned model (the same object, changed in place), its plan and report; ``undo()`` restores it bit for bit."""

    model: nn.Module
    plan: Plan
    report: Report
    _undo: Callable[[], None]

    def undo(self) -> None:
        self._undo()


def trace(model: nn.Module, example_inputs: Any = None, *, operators: Iterable[Operator] = ()) -> Structure:
    """The structure of ``model``: groups, frozen widths and their reasons, ties, costs and taps.

    Args:
        example_inputs: a tensor, a tuple of args, or a dict of kwargs; inferred from the model if None.
        operators: what is known of operators that prunekit has no rule for (``docs/operators.md``), beside those that
            installed plug-ins bring.

    Raises:
        InputError: if example inputs cannot be inferred.
        TraceError: if forward fails or cannot be followed; the model is as it was.
    """
    model = unwrap(model)
    inputs = infer(model) if example_inputs is None else normalise(example_inputs)
    with eager(model), paused_collector():
        return coupled(record(model, inputs), inputs, TABLE.with_(operators))


def plan(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    scorer: Scorer | None = None,
    ratio: Ratio | None = None,
    target: Target | None = None,
    data: Iterable[Any] | None = None,
    include: Sequence[str] | str | None = None,
    exclude: Sequence[str] | str | None = None,
    roles: Sequence[str] | str | None = None,
    align: Align = None,
    ranking: Ranking = "local",
    normaliser: str | Normaliser = "gaussian",
    rounding: Rounding = "nearest",
    pools: Sequence[Sequence[str]] | None = None,
    min_ratio: Ratio | None = None,
    max_ratio: Ratio | None = None,
    verify: Verify = "auto",
    structure: Structure | None = None,
    latency: LatencyTable | None = None,
    seed: int = 0,
) -> Plan:
    """What ``prune`` would do, without doing it. Arguments and errors as for ``prune``.

    A model on the meta device, which has no weights, can be planned with a scorer that reads none.
    """
    how = How(ranking, align, normaliser, pools, rounding, min_ratio=min_ratio, max_ratio=max_ratio)
    request = Request(scorer, ratio, target, include, exclude, roles, how, verify, seed, latency)
    model = unwrap(model)
    with eager(model):
        return draft(model, structure or trace(model, example_inputs), request, data=data).plan


def prune(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    scorer: Scorer | None = None,
    ratio: Ratio | None = None,
    target: Target | None = None,
    data: Iterable[Any] | None = None,
    include: Sequence[str] | str | None = None,
    exclude: Sequence[str] | str | None = None,
    roles: Sequence[str] | str | None = None,
    align: Align = None,
    ranking: Ranking = "local",
    normaliser: str | Normaliser = "gaussian",
    rounding: Rounding = "nearest",
    pools: Sequence[Sequence[str]] | None = None,
    min_ratio: Ratio | None = None,
    max_ratio: Ratio | None = None,
    steps: int = 1,
    schedule: Schedule = "cubic",
    on_step: OnStep | None = None,
    compensate: str | Compensation | None = None,
    verify: Verify = "auto",
    structure: Structure | None = None,
    latency: LatencyTable | None = None,
    seed: int = 0,
    progress: Any = None,
) -> Result:
    """Prunes ``model`` in place: a smaller module of the same class, whose outputs keep their shapes.

    Of a compiled model (``torch.compile``) or a ``DataParallel`` the module inside is pruned and returned.

    Args:
        example_inputs: a tensor, a tuple of args, or a dict of kwargs; inferred from the model if None.
        scorer: which units matter; ``Magnitude()`` if None.
        ratio: share of the units of every group to remove, in [0, 1); or a mapping from roles to shares. 0.5 where
            neither it nor a target is given.
        target: limits instead of a ratio, e.g. ``"macs<=2.3G, params<=50%"``; the widest model that keeps them all.
            Quantities: params, macs, layer_macs, memory (bytes of parameters and buffers), latency (measured here).
        data: calibration inputs for scorers that need them; generated if None, with a notice in the log.
        include, exclude: globs over parameters, modules, roles and group names; one that matches nothing is an error.
        roles: prune only groups of these roles.
        align: widths are kept at multiples of this.
        ranking: ``local`` removes the same share everywhere; ``global`` ranks all units together, ``role`` those of a
            role, ``isomorphic`` those of groups with the same structure.
        normaliser: makes scores of groups comparable before they are ranked together: a name out of
            ``scorers/normalisers.py``, or a function (units,) -> (units,).
        pools: roles that ``global`` ranks together; all of them by default.
        min_ratio, max_ratio: bounds on the share that any group loses, as ``ratio`` is written.
        steps: remove in so many steps, each scored on what the last one left.
        schedule: how much is gone after step k of n: ``linear`` k/n, ``cubic`` 1 - (1 - k/n)^3, of all that goes.
        on_step: called as ``on_step(model, k, n)`` after every step, e.g. to train in between.
        compensate: ``"ridge"`` refits what reads removed units by least squares on ``data``, without training.
        verify: ``shapes`` rehearses the pruned model on the meta device; ``full`` also checks that units are
            interchangeable, on real numbers; ``auto`` does so where a forward pass takes at most 50 GMACs.
        latency: a table of operator times for targets on latency, kept over several calls; a new one if None.

    Returns:
        the model, the plan, a report, and ``undo()``.

    Raises:
        PrunekitError: of the kind that errors.py lists. The model is then bit-identical to what came in.
    """
    start = time.perf_counter()
    how = How(ranking, align, normaliser, pools, rounding, min_ratio=min_ratio, max_ratio=max_ratio)
    request = Request(scorer, ratio, target, include, exclude, roles, how, verify, seed, latency)
    iteration = Iteration(steps, schedule, on_step, compensate)
    model = unwrap(model)
    if any(p.is_meta for p in model.parameters()):
        raise PlanError("the model is on the meta device and has no weights to cut", hint="use prunekit.plan")
    with eager(model):
        structure = structure or trace(model, example_inputs)
        done = cut_in_steps(model, structure, request, iteration, data=data, progress=progress, trace=_as(structure))
        took = _latency(model, done)
    return Result(model, done.plan, _report(structure, done.drafts, request, start, took), done.undo)


def _as(structure: Structure) -> Callable[[nn.Module, Any], Structure]:
    """Traces again with what was known for ``structure``."""
    return lambda model, inputs: trace(model, inputs, operators=structure.brought)


def _latency(model: nn.Module, done: Done) -> dict[str, float] | None:
    pace = None if done.baseline is None else done.baseline.pace
    if pace is None:
        return None
    last = done.drafts[-1]
    predicted, after = pace.seconds(last.structure, last.kept), pace.measured(model, last.structure.inputs)
    return {"before": pace.whole, "predicted": predicted, "after": after}


def _report(
    original: Structure, drafts: Sequence[Draft], request: Request, start: float, took: dict[str, float] | None
) -> Report:
    last = drafts[-1]
    before, after = original.cost(), last.structure.cost(last.kept)
    notes = [note for made in drafts for note in made.notes]
    return Report(
        params={"before": before.params, "after": after.params},
        macs={"before": before.macs, "after": after.macs},
        layer_macs={"before": before.layer_macs, "after": after.layer_macs},
        memory={"before": before.memory, "after": after.memory},
        verify=_verify_report(drafts[0].symmetry),
        scorer=repr(last.scorer),
        ratio=None if request.target is not None else _plain(request.share),
        target=_plain(request.target),
        notes=tuple(f"{n.where}: a constant changes from {n.before:.6g} to {n.after:.6g}" for n in notes),
        seconds=round(time.perf_counter() - start, 3),
        latency=took,
    )


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _verify_report(checked: Symmetry | None) -> dict[str, Any]:
    if checked is None:
        return {"shapes": "passed", "symmetry": "not run", "hint": "pass verify='full' to run it at any size"}
    state = "passed" if checked.passed else "broken groups left alone"
    return {
        "shapes": "passed",
        "symmetry": state,
        "symmetry_error": checked.error,
        "symmetry_broken": list(checked.broken),
    }
