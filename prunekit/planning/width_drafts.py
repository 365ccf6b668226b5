"""A draft of widths: groups are chosen, scored and selected; the model's own code is asked whether it follows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from prunekit.allocation.measuring import Meter
from prunekit.compensation.settings import as_compensation
from prunekit.compensation.sums import Sums
from prunekit.coupling.groups import Frozen, Group
from prunekit.coupling.structure import Structure
from prunekit.errors import InputError
from prunekit.graph.nodes import packet
from prunekit.inputs import Inputs
from prunekit.operators import TABLE
from prunekit.options import Options
from prunekit.options.measured import as_measured
from prunekit.options.types import Ratio
from prunekit.planning.aiming import Fixed, as_wanted, is_timed, within_target
from prunekit.planning.candidates import choose, nothing_to_prune
from prunekit.planning.depth_criteria import for_widths
from prunekit.planning.depth_search import Deep
from prunekit.planning.dropping import Dropping
from prunekit.planning.folds import Note
from prunekit.planning.liked_widths import with_liked_widths
from prunekit.planning.measured import Choosing, MeasuredAim, measured_inputs, other_samples
from prunekit.planning.on_the_clock import Timing, met_on_the_clock
from prunekit.planning.scoring import scored_by
from prunekit.planning.settling import Settled, largest_settled, settled_at
from prunekit.planning.symmetry_check import Symmetry, check_symmetry
from prunekit.planning.uniform_widths import uniform_draft
from prunekit.plans.composition import compose
from prunekit.plans.contents import Plan
from prunekit.plugins.homes import Words
from prunekit.quantities.gauge import Baseline, Gauge
from prunekit.registry import criterion
from prunekit.registry.homes import words_of
from prunekit.registry.rules import coupled
from prunekit.removal.certificate import Certificate
from prunekit.roles import HEAD_DIM, HEADS
from prunekit.scorers import Magnitude, Scored, Scorer
from prunekit.selection import Conditions, filter_groups
from prunekit.surgery.cutting import applied
from prunekit.tracing.recorder import record

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Draft:
    """A plan with what led to it: kept units by group, the structure, the symmetry check, constants and remarks.

    Of a plan that removes blocks, ``certificate`` is what their removal was found to change; ``damage`` is there where
    it was measured, and ``timing`` what the clock said of a plan for a latency.
    """

    plan: Plan
    kept: dict[str, Tensor]
    structure: Structure
    symmetry: Symmetry | None
    notes: tuple[Note, ...]
    scorer: Scorer
    certificate: Certificate | None = None
    remarks: tuple[str, ...] = ()
    damage: float | None = None
    timing: Timing | None = None


@dataclass(frozen=True, eq=False)
class More:
    """What a draft of widths is made with where depth goes too.

    ``wanted`` are units to keep, in the place of a choice; ``dropping`` is told what was measured; ``fits`` are
    what maps and a refit are fitted on, ``sums`` what has been swept of them already.
    """

    wanted: Mapping[str, Tensor] | None = None
    dropping: Dropping | None = None
    fits: Sequence[Inputs] | None = None
    sums: Sums | None = None


def widths_draft(
    model: nn.Module,
    structure: Structure,
    options: Options,
    *,
    data: Iterable[Any] | None = None,
    progress: Any = None,
    baseline: Baseline | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Draft:
    """``draft`` where the options ask for widths alone. Raises what it raises."""
    _warn_of(options, structure)
    check_allocation(options, structure)
    if isinstance(data, Iterator) and as_measured(options.choice.allocation) is not None:
        data = list(data)  # read twice: for scores, and for damage
    if not options.choice.uniform:
        return one_draft(model, structure, data, progress, baseline, sizes, options)
    # many drafts are made, of other groups each: all that any of them may have are scored once
    choice, scope = options.choice, options.scope
    readers = structure.readers if scope.exclude else None
    groups = filter_groups(structure.groups, scope.include, scope.exclude, scope.roles, readers)
    scorer, scores = scored_by(choice.scorer, model, structure, groups, data, choice.seed, progress)
    make = partial(one_draft, model, structure, None, progress, baseline, sizes)
    made = uniform_draft(model, structure, options.replaced(scorer=Scored(scores, scorer)), make)
    return replace(made, scorer=scorer)


def widths_after(
    model: nn.Module,
    structure: Structure,
    deep: Deep | Draft,
    options: Options,
    data: Any,
    progress: Any,
    baseline: Baseline | None = None,
    fits: Sequence[Inputs] | None = None,
    known: Callable[[Structure], Scorer | None] | None = None,
) -> Draft:
    """``deep``, and then widths of what it leaves: the model is without these blocks while they are chosen.

    ``fits`` are what affine maps in their place are fitted on; ``known`` are scores of what is left, where there are.
    """
    with applied(model, deep.plan, fits):
        left, asked = traced_again(model, structure), for_widths(options)
        scores = None if known is None else known(left)
        asked = asked if scores is None else asked.replaced(scorer=scores)
        made = widths_draft(model, left, asked, data=data, progress=progress, baseline=baseline)
    return replace(made, plan=compose(deep.plan, made.plan), certificate=deep.certificate)


def traced_again(model: nn.Module, structure: Structure) -> Structure:
    """The structure of ``model`` as it stands, by what was known for ``structure``."""
    table = TABLE.with_(structure.brought)
    trace = record(model, structure.inputs)
    return coupled(model, trace, structure.inputs, table, free_outputs=structure.free_outputs)


def one_draft(
    model: nn.Module,
    structure: Structure,
    data: Iterable[Any] | None,
    progress: Any,
    baseline: Baseline | None,
    sizes: Mapping[str, int] | None,
    options: Options,
    more: More = More(),
) -> Draft:
    """One set of widths, at a ratio or within a target. Raises NothingToPruneError, and what a target raises."""
    chosen = choose(structure, options.scope)
    candidates = len(chosen)
    checked = check_symmetry(model, structure, chosen, options)
    if checked is not None and checked.broken:
        logger.warning("symmetry does not hold for %s: these groups are left alone", ", ".join(checked.broken))
        chosen = tuple(g for g in chosen if g.name not in checked.broken)
    if options.scope.target is not None and not chosen:
        raise nothing_to_prune(structure, checked)
    words, choice = words_of(model), options.choice
    scorer, scores = scored_by(choice.scorer, model, structure, chosen, data, choice.seed, progress)
    options, said = with_liked_widths(model, chosen, options)
    conditions, remarks = Conditions(options, kinds=structure.kinds, sizes=sizes), [*said]
    measured: MeasuredAim | None = None
    timing: Timing | None = None
    if options.scope.target is None:
        found, refused = _at_ratio(model, structure, chosen, scores, conditions, candidates, words)
    else:
        baseline = baseline or Baseline.of(model, structure, options.scope.target, options.cutting.latency)
        gauge = Gauge.of(model, structure, options.scope.target, baseline)
        if as_measured(choice.allocation):
            measured = _measured_aim(model, structure, scores, gauge, words, data, progress, options, more)
            found, refused = within_target(model, structure, chosen, scores, conditions, measured, words)
            remarks += measured.remarks
        elif more.wanted is not None:
            aim = partial(as_wanted, structure, gauge, scores, more.wanted)
            found, refused = within_target(model, structure, chosen, scores, conditions, aim, words)
        else:
            timed = is_timed(structure, options, baseline)
            fixed = Fixed(model, structure, chosen, scores, conditions, words)
            (found, refused), timing = (
                met_on_the_clock(model, structure, gauge, fixed) if timed else (fixed(gauge), None)
            )
            remarks += [str(timing)] if timing is not None else []
    if found is None or not (found[0].cuts or options.scope.target is not None or _nothing_asked(options.scope.share)):
        bound = "the ratio takes no unit here, or the model's own arithmetic binds it to widths that stay"
        kept_whole = () if found is None else [g for g in chosen if len(found[1].get(g.name, ())) == g.size]
        stay = [Frozen(g.name, g.size, bound) for g in kept_whole]
        raise nothing_to_prune(structure, checked, [*refused, *stay])
    made, kept, notes = found
    for frozen in refused:
        logger.warning("%s is left alone: %s", frozen.name, frozen.reason)
    for note in notes:
        logger.warning("%s: a constant changes from %.6g to %.6g", note.where, note.before, note.after)
    made = replace(made, frozen=(*made.frozen, *refused))
    damage = None if measured is None else measured.damage
    return Draft(made, kept, structure, checked, notes, scorer, None, tuple(remarks), damage, timing)


def _measured_aim(
    model: nn.Module,
    structure: Structure,
    scores: Mapping[str, Tensor],
    gauge: Gauge,
    words: Words | None,
    data: Iterable[Any] | None,
    progress: Any,
    options: Options,
    more: More,
) -> MeasuredAim:
    how, seed = as_measured(options.choice.allocation), options.choice.seed
    assert how is not None
    samples = measured_inputs(model, structure, data, how, seed)
    refit = as_compensation(options.cutting.compensate)
    fits = more.fits
    if fits is None:
        is_swept = refit is not None and not refit.in_order
        fits = other_samples(model, structure, data, refit, seed, samples) if is_swept else samples
    meter = Meter.of(model, how, samples, refit, fits, more.sums)
    asked = Choosing(model, structure, scores, gauge, words, how, samples)
    return MeasuredAim(asked, meter, [], progress, dropping=more.dropping)


def check_allocation(options: Options, structure: Structure) -> None:
    """Raises InputError where a measured allocation has no target to spend, or outputs whose shapes change."""
    if as_measured(options.choice.allocation) is None:
        return
    if options.scope.target is None:
        raise InputError(
            "a measured allocation spends a target, and there is none",
            where="allocation",
            hint='give target="params<=80%" in the place of ratio',
        )
    if structure.free_outputs:
        raise InputError(
            "outputs whose widths shrink cannot be compared with the original's",
            where="allocation",
            hint="leave free_outputs at False, or allocation at 'ranked'",
        )


def _warn_of(options: Options, structure: Structure) -> None:
    """Magnitude says little of a language model, which it was measured to ruin (docs/language.md)."""
    attends = any(group.role in (HEADS, HEAD_DIM) for group in structure.groups)
    if (
        type(criterion(options.choice.scorer)) is Magnitude
        and attends
        and any(packet(op) == "aten.embedding" for op in structure.trace.ops)
    ):
        logger.warning(
            "magnitude looks at weights alone, which costs a language model far more than a criterion that sees data: "
            "pass data= and scorer='wanda' or 'disturbed_taylor'"
        )


def _at_ratio(
    model: nn.Module,
    structure: Structure,
    chosen: Sequence[Group],
    scores: Mapping[str, Tensor],
    conditions: Conditions,
    candidates: int,
    words: Words | None,
) -> tuple[Settled | None, list[Frozen]]:
    ratio = conditions.options.scope.share
    asked: dict[str, Any] = {"scores": scores, "ratio": ratio, "conditions": conditions, "candidates": candidates}
    asked["words"] = words
    return largest_settled(chosen, partial(settled_at, model, structure, **asked))


def _nothing_asked(ratio: Ratio) -> bool:
    return not any(ratio.values()) if isinstance(ratio, Mapping) else ratio == 0
