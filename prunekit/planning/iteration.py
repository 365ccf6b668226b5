"""Pruning in one step or in several: each step is scored on what the last one left, and all are one plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from torch import nn

from prunekit.compensation.settings import Compensation, as_compensation
from prunekit.coupling.structure import Structure
from prunekit.errors import NothingToPruneError
from prunekit.inputs import Inputs
from prunekit.inputs.per_rank import kept_to_read_again
from prunekit.modules.snapshot import kept_as_is
from prunekit.options import Options
from prunekit.options.schedules import portions
from prunekit.options.types import Ratio
from prunekit.planning.depth_amount import gone_so_far, original_sizes
from prunekit.planning.depth_criteria import for_blocks, for_widths
from prunekit.planning.drafting import depth_draft, draft
from prunekit.planning.measured import calibration
from prunekit.planning.parting import parted
from prunekit.planning.width_drafts import Draft
from prunekit.plans.composition import compose
from prunekit.plans.contents import Plan
from prunekit.quantities.gauge import Baseline
from prunekit.quantities.limits import Target, parse_target
from prunekit.surgery.cutting import Undo, carry_out_plan, take_back

Tracer = Callable[[nn.Module, Any], Structure]


@dataclass(eq=False)
class Done:
    """The steps that were made, and the way back."""

    drafts: list[Draft] = field(default_factory=list)
    undos: list[Callable[[], None]] = field(default_factory=list)
    baseline: Baseline | None = None

    @property
    def plan(self) -> Plan:
        """All steps as one plan on the original."""
        return reduce(compose, [made.plan for made in self.drafts])

    def undo(self) -> None:
        """Takes everything back, the last step first. Once it has, it does nothing."""
        take_back(self.undos)


def cut_in_steps(
    model: nn.Module,
    structure: Structure,
    options: Options,
    *,
    data: Iterable[Any] | None,
    progress: Any,
    trace: Tracer,
    done: Done,
) -> None:
    """Drafts and applies every step and tells ``done`` of it. If one fails, or the callback does, all are taken back.

    A step that takes nothing, because alignment leaves it no unit, is passed over unless it is the only one.
    """
    cutting, target = options.cutting, options.scope.target
    parts = portions(cutting.steps, cutting.schedule)
    refit = as_compensation(cutting.compensate)
    asked = parted(options)
    again = len(parts) > 1 or refit is not None or asked.depth is not None
    held = kept_to_read_again(data) if data is not None and again else data
    if target is not None:
        done.baseline = Baseline.of(model, structure, target, cutting.latency)
    structure, options = _without_blocks(model, structure, options, held, progress, trace, done)
    blocks = len(done.drafts)
    baseline, inputs = done.baseline, structure.inputs
    deep = parted(options).depth
    sizes = original_sizes(structure, None if deep is None else deep.scope)
    if cutting.on_step is not None:
        done.undos.append(Undo([kept_as_is(model)]))
    try:
        for number, part in enumerate(parts, 1):
            if len(done.drafts) > blocks:
                structure = trace(model, inputs)
            step = options if part == 1 else _part_of(options, part, baseline)
            try:
                gone = gone_so_far(each.plan for each in done.drafts[blocks:])
                known: dict[str, Any] = {"baseline": baseline, "sizes": sizes, "gone": gone}
                made = draft(model, structure, step, data=held, progress=progress, **known)
            except NothingToPruneError:
                if number == len(parts) and len(done.drafts) == blocks:
                    raise
            else:
                how = refit if made.plan.cuts else None  # what reads a whole block reads the stream
                _carried_out(
                    model, made, done, how, _calibration(model, how, made, held, structure, options.choice.seed)
                )
            if cutting.on_step is not None:
                cutting.on_step(model, number, len(parts))
    except BaseException:
        done.undo()
        raise


def _without_blocks(
    model: nn.Module, structure: Structure, options: Options, data: Any, progress: Any, trace: Tracer, done: Done
) -> tuple[Structure, Options]:
    """Where a ratio asks for both blocks and widths, blocks go first and at once: what is left, what is still asked."""
    asked = parted(options)
    if asked.depth is None or asked.widths is None or options.scope.target is not None:
        return structure, options
    try:
        made = depth_draft(model, structure, for_blocks(asked.depth), data=data, progress=progress)
        _carried_out(model, made, done, None, _calibration(model, None, made, data, structure, options.choice.seed))
        return trace(model, structure.inputs), for_widths(asked.widths)
    except BaseException:
        done.undo()
        raise


def _carried_out(
    model: nn.Module, made: Draft, done: Done, refit: Compensation | None = None, data: list[Inputs] | None = None
) -> None:
    done.drafts.append(made)
    undo = Undo([])
    done.undos.append(undo)
    carry_out_plan(model, made.plan, undo, compensate=refit, data=data)


def _calibration(
    model: nn.Module, refit: Compensation | None, made: Draft, data: Any, structure: Structure, seed: int
) -> list[Inputs] | None:
    """Samples for a refit, or for affine maps that stand for what goes; None where there is neither."""
    has_maps = any(absence.has_map for absence in made.plan.absences)
    if refit is None and not has_maps:
        return None
    return calibration(model, structure, data, refit, seed)


def part_of(target: Target, part: float, whole: Mapping[str, float]) -> dict[str, float]:
    """The target of a step after which ``part`` of all that goes is gone; ``whole`` is the original by quantity."""
    aims = {limit.quantity: limit.of(whole[limit.quantity]) for limit in parse_target(target)}
    return {name: whole[name] - (whole[name] - aim) * part for name, aim in aims.items()}


def _part_of(options: Options, part: float, baseline: Baseline | None) -> Options:
    """The options of a step after which ``part`` of all that goes is gone."""
    target = options.scope.target
    if target is not None and baseline is not None:
        return options.replaced(target=part_of(target, part, baseline.quantities))
    share = options.scope.share
    scaled: Ratio = {k: v * part for k, v in share.items()} if isinstance(share, Mapping) else share * part
    return options.replaced(ratio=scaled)
