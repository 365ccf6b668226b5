"""The one call, and its steps: trace, plan, apply, prune."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from prunekit.coupling.cost import Cost
from prunekit.coupling.structure import Structure
from prunekit.errors import InputError, PlanError, expect
from prunekit.inputs import Inputs, infer, normalise
from prunekit.inputs.per_rank import Meeting, meeting_of
from prunekit.modules.rollback import standing
from prunekit.modules.walk import named_modules, state_tensors
from prunekit.modules.wrappers import eager, unwrap
from prunekit.operators import TABLE, Operator
from prunekit.options import Options
from prunekit.options.keywords import takes_options
from prunekit.options.types import as_json
from prunekit.planning.drafting import draft
from prunekit.planning.iteration import Done, cut_in_steps
from prunekit.planning.naming import by_name
from prunekit.planning.width_drafts import Draft
from prunekit.plans.contents import Plan
from prunekit.plans.lines import width_lines
from prunekit.plans.renaming import Renaming
from prunekit.plugins.homes import Settlement, home_lines
from prunekit.quantities.layers import Layer, layer_table, layers_of
from prunekit.quantities.lifetimes import peak_activations
from prunekit.quantities.lines import report_lines
from prunekit.registry.homes import settled_for_good
from prunekit.registry.rules import coupled
from prunekit.scorers import OWN
from prunekit.scorers.calibrate import checksum
from prunekit.scorers.needs import NOTHING, WEIGHTS
from prunekit.surgery.cutting import apply, take_back
from prunekit.surgery.way_back import no_way_back
from prunekit.tracing.collector import paused_collector
from prunekit.tracing.recorder import record

STEPWISE = ("steps", "schedule", "on_step", "compensate")  # what a plan alone cannot do

__all__ = ["Report", "Result", "apply", "plan", "prune", "trace"]


@dataclass(frozen=True)
class Report:
    """What pruning did. Counts before and after; ``verify`` says which checks ran and what they found.

    ``latency`` is there where a target limits it, in seconds: measured ``before``, ``predicted`` for the pruned model
    by the table of operators and measured ``after`` on it, all on the example inputs; where both were timed in turn,
    ``noise`` is the standard error of ``after``, as a part of it. ``runner`` is what ran the model then: ``eager``,
    ``compiled`` or ``onnx``. ``activations`` and ``kv_cache`` are there where a target limits them, in bytes.
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
    runner: str | None = None
    activations: dict[str, int] | None = None
    kv_cache: dict[str, int] | None = None

    def __repr__(self) -> str:
        return "\n".join(report_lines(self))


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """A pruned model (the same object, changed in place), its plan and report; ``undo()`` restores it bit for bit.

    ``replaced`` are the tensors that were there before, with their names, by id: what ``migrate_optimizer`` knows an
    optimizer's parameters by. ``layers`` are the parameters and multiply-adds of every layer, before and after.
    ``home`` says what was written into the model's own configuration, or why nothing was; None where it has none.
    """

    model: nn.Module
    plan: Plan
    report: Report
    replaced: Mapping[int, tuple[Tensor, str]]
    layers: tuple[Layer, ...]
    home: Settlement | None
    _back: list[Callable[[], None]]

    def undo(self) -> None:
        """The model and its configuration as they were before ``prune``; all of it even where this is interrupted."""
        take_back(self._back)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle holds: the way back and the ids of the tensors before are of this model alone."""
        return {**vars(self), "replaced": {}, "_back": [no_way_back]}

    def table(self) -> str:
        """``layers`` as text in columns."""
        return layer_table(self.layers)

    def __repr__(self) -> str:
        lines = [f"pruned {type(self.model).__name__}", *report_lines(self.report), *home_lines(self.home)]
        return "\n".join([*lines, *width_lines(self.plan)])


def trace(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    operators: Iterable[Operator] = (),
    free_outputs: bool = False,
) -> Structure:
    """The structure of ``model``: groups, frozen widths and their reasons, ties, costs and taps.

    Args:
        example_inputs: a tensor, a tuple of args, or a dict of kwargs; inferred from the model if None.
        operators: what is known of operators that prunekit has no rule for (``docs/operators.md``), beside those that
            installed plug-ins bring.
        free_outputs: whether widths of what the model returns may shrink too.

    Raises:
        InputError: if example inputs cannot be inferred.
        TraceError: if forward fails or cannot be followed; the model is as it was.
    """
    model = unwrap(model)
    with eager():
        return _followed_anew(model, example_inputs, operators, free_outputs=free_outputs)


def _followed_anew(
    model: nn.Module, example_inputs: Any, operators: Iterable[Operator], *, free_outputs: bool
) -> Structure:
    """``trace`` of what ``unwrap`` gave, inside ``eager``."""
    inputs = infer(model) if example_inputs is None else normalise(example_inputs)
    table = TABLE.with_(operators)
    with paused_collector():
        return coupled(model, record(model, inputs), inputs, table, free_outputs=free_outputs)


@takes_options(without=STEPWISE)
def plan(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    data: Iterable[Any] | None = None,
    structure: Structure | None = None,
    options: Options | None = None,
    **keywords: Any,
) -> Plan:
    """What ``prune`` would do in one step, without doing it. Arguments and errors as for ``prune``.

    A model on the meta device, which has no weights, can be planned with a scorer that reads none.
    """
    options = (options or Options()).replaced(**keywords)
    options.refuse("prunekit.plan", STEPWISE)
    model = unwrap(model)
    options = by_name(options, model)
    with eager(), meeting_of(data) as data, _collector(options, data):
        made = draft(model, _given_or_traced(model, example_inputs, structure, options), options, data=data).plan
        if isinstance(data, Meeting):
            data.end("what was planned", made.to_json())
        return made


@takes_options()
def prune(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    data: Iterable[Any] | None = None,
    structure: Structure | None = None,
    progress: Any = None,
    options: Options | None = None,
    **keywords: Any,
) -> Result:
    """Prunes ``model`` in place: a smaller module of the same class, whose outputs keep their shapes.

    Of a compiled model (``torch.compile``) or a ``DataParallel`` the module inside is pruned and returned.

    Args:
        example_inputs: a tensor, a tuple of args, or a dict of kwargs; inferred from the model if None.
        {options}
        data: calibration inputs for scorers that need them; generated if None, with a notice in the log. Of several
            ranks each passes its own as ``PerRank``.
        structure: what ``prunekit.trace`` gave for this model, where it is there already.
        progress: called with (done, total) while samples are scored.
        options: all of the above but ``example_inputs`` as one value; keywords replace what it says.

    Returns:
        the model, the plan, a report, and ``undo()``.

    Raises:
        PrunekitError: of the kind that errors.py lists. The model is then bit-identical to what came in.
    """
    start = time.perf_counter()
    expect("progress", progress, "a function (done, total)", fits=progress is None or callable(progress))
    options = (options or Options()).replaced(**keywords)
    model = unwrap(model)
    options = by_name(options, model)
    with meeting_of(data) as data, _collector(options, data):
        return _pruned(model, example_inputs, structure, options, data=data, progress=progress, start=start)


def _pruned(
    model: nn.Module,
    example_inputs: Any,
    structure: Structure | None,
    options: Options,
    *,
    data: Iterable[Any] | None,
    progress: Any,
    start: float,
) -> Result:
    """``prune`` of what ``unwrap`` gave, since ``start``."""
    _check_weights(model)
    modules = named_modules(model)
    replaced = {id(tensor): (tensor, name) for name, tensor in state_tensors(model, modules).items()}
    done = Done()
    back = [standing(model, modules), done.undo]
    try:
        with eager():
            structure = _given_or_traced(model, example_inputs, structure, options)
            cut_in_steps(model, structure, options, data=data, progress=progress, trace=_as(structure), done=done)
            took, pace = _latency(model, done), None if done.baseline is None else done.baseline.pace
            settlement = settled_for_good(model, structure.inputs)
            back += [settlement.undo] if settlement is not None else []
            if isinstance(data, Meeting):
                data.same("what was planned", done.plan.to_json())
                data.end("weights after the cut", {n: checksum(Inputs((t,))) for n, t in state_tensors(model).items()})
        last = done.drafts[-1]
        earlier, after, kept = done.drafts[:-1], last.structure, last.kept
        if any(absence.has_map for absence in done.plan.absences):  # which no trace has seen
            earlier, after, kept = done.drafts, _as(structure)(model, structure.inputs), {}
        names = Renaming(removal for made in earlier for removal in made.plan.removals)
        left = {names.was(name): counts for name, counts in after.layers(kept).items()}
        layers = layers_of(structure.layers(), left)
        report = _report(structure, done.drafts, options, start, took, after.cost(kept))
        more = _bytes(structure, after, kept, done)
        report = replace(report, activations=more.get("activations"), kv_cache=more.get("kv_cache"))
        report = replace(report, runner=None if pace is None else pace.runner)
        return Result(model, done.plan, report, replaced, layers, settlement, back[1:])
    except BaseException:
        take_back(back)
        raise


def _collector(options: Options, data: Any) -> AbstractContextManager[None]:
    """Paused for a call that reads weights alone, in one step: what it makes is gone or returned when it ends.

    Between the rooms the collector would walk a trace that lives on, and every few calls all objects of the process,
    which takes longer than the call. What runs on samples may leave much in cycles, and is not to wait.
    """
    scorer, cutting = options.choice.scorer, options.cutting
    needs = getattr(OWN.get(scorer) if isinstance(scorer, str) else scorer, "needs", None)
    alone = needs in (WEIGHTS, NOTHING) and data is None and isinstance(options.choice.allocation, str)
    quick = alone and options.choice.allocation == "ranked" and cutting.steps == 1
    return paused_collector() if quick and cutting.compensate is None and cutting.on_step is None else nullcontext()


def _as(structure: Structure) -> Callable[[nn.Module, Any], Structure]:
    """Traces again with what was known for ``structure``."""
    known: dict[str, Any] = {"operators": structure.brought, "free_outputs": structure.free_outputs}
    return lambda model, inputs: trace(model, inputs, **known)


def _check_weights(model: nn.Module) -> None:
    parameters = list(model.named_parameters())
    names, count = [name for name, parameter in parameters if parameter.is_meta], len(parameters)
    if names and len(names) == count:
        raise PlanError("the model is on the meta device and has no weights to cut", hint="use prunekit.plan")
    if names:
        raise PlanError(
            f"{len(names)} of {count} parameters are on the meta device",
            where=names[0],
            hint="load all weights on the CPU; mapped from safetensors they need no memory within prunekit.offloaded",
        )


def _given_or_traced(model: nn.Module, example_inputs: Any, structure: Structure | None, options: Options) -> Structure:
    wanted = options.scope.free_outputs
    expect(
        "structure",
        structure,
        "what prunekit.trace gave for this model",
        fits=structure is None or isinstance(structure, Structure),
    )
    if structure is None:
        return _followed_anew(model, example_inputs, (), free_outputs=wanted)
    shapes = {name: tuple(tensor.shape) for name, tensor in state_tensors(model).items()}
    traced = {name: tuple(ref.shape) for name, ref in structure.trace.state.items()}
    if other := next((name for name, shape in traced.items() if shapes.get(name) != shape), None):
        raise InputError(
            f"the structure was traced on another model: {other} was {traced[other]} there",
            where="structure",
            hint="trace the model again after every change of its widths, or leave structure out",
        )
    if wanted and not structure.free_outputs:
        raise InputError(
            "the structure was traced with outputs that keep their widths",
            where="free_outputs",
            hint="trace(model, example_inputs, free_outputs=True), or leave structure out",
        )
    return structure


def _latency(model: nn.Module, done: Done) -> dict[str, float] | None:
    pace = None if done.baseline is None else done.baseline.pace
    if pace is None:
        return None
    last = done.drafts[-1]
    predicted = pace.seconds(last.structure, last.kept)
    if last.timing is not None:
        after = last.timing.share * pace.whole
        return {"before": pace.whole, "predicted": predicted, "after": after, "noise": last.timing.noise}
    return {"before": pace.whole, "predicted": predicted, "after": pace.measured(model, last.structure.inputs)}


def _bytes(structure: Structure, after: Structure, kept: Mapping[str, Tensor], done: Done) -> dict[str, dict[str, int]]:
    """Activations and cache before and after, each where a target limits it."""
    limited = () if done.baseline is None else done.baseline.limited
    found = {}
    if "activations" in limited:
        found["activations"] = {"before": peak_activations(structure, {}), "after": peak_activations(after, kept)}
    if "kv_cache" in limited:
        found["kv_cache"] = {"before": structure.cost().kv_cache, "after": after.cost(kept).kv_cache}
    return found


def _report(
    original: Structure,
    drafts: Sequence[Draft],
    options: Options,
    start: float,
    took: dict[str, float] | None,
    after: Cost,
) -> Report:
    last, before = drafts[-1], original.cost()
    notes = [note for made in drafts for note in made.notes]
    return Report(
        params={"before": before.params, "after": after.params},
        macs={"before": before.macs, "after": after.macs},
        layer_macs={"before": before.layer_macs, "after": after.layer_macs},
        memory={"before": before.memory, "after": after.memory},
        verify=_verify_report(drafts),
        scorer=repr(last.scorer),
        ratio=None if options.scope.target is not None else as_json(options.scope.share),
        target=as_json(options.scope.target),
        notes=(
            *(remark for made in drafts for remark in made.remarks),
            *(f"{n.where}: a constant changes from {n.before:.6g} to {n.after:.6g}" for n in notes),
        ),
        seconds=round(time.perf_counter() - start, 3),
        latency=took,
    )


def _verify_report(drafts: Sequence[Draft]) -> dict[str, Any]:
    certificates = [made.certificate for made in drafts if made.certificate is not None]
    found: dict[str, Any] = {"shapes": "passed"}
    if certificates:
        found |= {"depth": "passed", "depth_error": max(each.error for each in certificates)}
    of_widths = next((made for made in drafts if made.certificate is None or made.plan.cuts), None)
    if of_widths is None:
        return found
    checked = of_widths.symmetry
    if checked is None:
        return {**found, "symmetry": "not run", "hint": "pass verify='full' to run it at any size"}
    state = "passed" if checked.passed else "broken groups left alone"
    return {**found, "symmetry": state, "symmetry_error": checked.error, "symmetry_broken": list(checked.broken)}
