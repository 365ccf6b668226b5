"""A plan in the making: groups are chosen, scored and selected; the model's own code is asked whether it follows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from prunekit.allocation.measuring import Meter
from prunekit.compensation.settings import as_compensation
from prunekit.coupling.groups import Frozen, Group
from prunekit.coupling.structure import Structure
from prunekit.errors import InputError, NothingToPruneError
from prunekit.graph.nodes import packet
from prunekit.operators import TABLE
from prunekit.options import Options
from prunekit.options.measured import as_measured
from prunekit.options.types import Ratio
from prunekit.planning.candidates import choose, nothing_to_prune
from prunekit.planning.deep import Deep, DepthSearch, deep_draft, for_blocks, for_widths
from prunekit.planning.depth_bounds import caps_of, least_of
from prunekit.planning.dropping import Dropping, Proposal, carried
from prunekit.planning.folds import Note
from prunekit.planning.liked_widths import with_liked_widths
from prunekit.planning.measured import Choosing, MeasuredAim, measured_inputs
from prunekit.planning.mixing import Mixing, is_met
from prunekit.planning.on_the_clock import Timing, met_on_the_clock
from prunekit.planning.parting import Parted, parted
from prunekit.planning.scoring import scored_by
from prunekit.planning.settling import Settled, largest_settled, settled_at, settled_within
from prunekit.planning.symmetry_check import Symmetry, check_symmetry
from prunekit.planning.targeted import filled_up, select_for_target
from prunekit.planning.uniform_widths import uniform_draft
from prunekit.planning.variants import Attainable
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

Aim = Callable[[Sequence[Group], Conditions], dict[str, Tensor]]


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


def draft(
    model: nn.Module,
    structure: Structure,
    options: Options,
    *,
    data: Iterable[Any] | None = None,
    progress: Any = None,
    baseline: Baseline | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Draft:
    """A plan with everything that led to it.

    ``baseline`` is what a relative target refers to, if not ``structure``; ``sizes`` what a ratio refers to, see
    ``Conditions``. Raises NothingToPruneError, and with ``uniform`` ConfigError where no plan can be said.
    """
    parts = parted(options)
    _check_maps(parts)
    if parts.depth is not None:
        held = None if data is None else list(data)  # read more than once
        if parts.widths is not None and options.scope.target is not None:
            return _shared_target(model, structure, parts.depth, parts.widths, held, progress, baseline)
        asked = parts.depth if parts.widths is None else for_blocks(parts.depth)
        deep = depth_draft(model, structure, asked, data=held, progress=progress, baseline=baseline, sizes=sizes)
        return deep if parts.widths is None else _widths_after(model, structure, deep, parts.widths, held, progress)
    _warn_of(options, structure)
    _check_allocation(options, structure)
    if isinstance(data, Iterator) and as_measured(options.choice.allocation) is not None:
        data = list(data)  # read twice: for scores, and for damage
    if not options.choice.uniform:
        return _one_draft(model, structure, data, progress, baseline, sizes, options)
    # many drafts are made, of other groups each: all that any of them may have are scored once
    choice, scope = options.choice, options.scope
    readers = structure.readers if scope.exclude else None
    groups = filter_groups(structure.groups, scope.include, scope.exclude, scope.roles, readers)
    scorer, scores = scored_by(choice.scorer, model, structure, groups, data, choice.seed, progress)
    make = partial(_one_draft, model, structure, None, progress, baseline, sizes)
    made = uniform_draft(model, structure, options.replaced(scorer=Scored(scores, scorer)), make)
    return replace(made, scorer=scorer)


def _check_maps(parts: Parted) -> None:
    """Raises InputError where affine maps are asked for and nothing goes whole, or widths in the same plan."""
    asked = parts.widths or parts.depth
    if asked is None or asked.cutting.replace is None or parts.widths is None:
        return
    what = "nothing that it could stand for" if parts.depth is None else "widths of what is left in the same plan"
    raise InputError(
        f"replace={asked.cutting.replace!r} is asked for, and {what}",
        where="replace",
        hint='prune with roles=["depth.block"] or ["depth.mlp"], and widths in a call of its own',
    )


def depth_draft(model: nn.Module, structure: Structure, options: Options, **given: Any) -> Draft:
    """The plan of ``deep_draft``, whose errors it raises, as a draft."""
    found = deep_draft(model, structure, options, **given)
    return Draft(found.plan, found.kept, structure, None, (), found.scorer, found.certificate)


def _shared_target(
    model: nn.Module,
    structure: Structure,
    depth: Options,
    widths: Options,
    data: Sequence[Any] | None,
    progress: Any,
    baseline: Baseline | None,
) -> Draft:
    """A target over blocks and widths. Raises InputError where nothing measures how much of it each should take."""
    choice, target = widths.choice, widths.scope.target
    how = as_measured(choice.allocation)
    if how is None:
        raise InputError(
            "the target does not say how much of it depth takes, and how much widths do",
            where="target",
            hint="allocation='measured' finds out; or prune blocks by a ratio, and then what is left to the target",
        )
    assert target is not None
    baseline = baseline or Baseline.of(model, structure, target, widths.cutting.latency)
    refit = as_compensation(widths.cutting.compensate)
    if refit is not None and refit.in_order:  # said before anything is measured
        raise InputError(
            "a refit in order cannot follow blocks that go in the same plan",
            where="compensate",
            hint="compensate='ridge' refits in one sweep; or prune blocks by a ratio, then widths to the target",
        )
    inputs = measured_inputs(structure, data, how, choice.seed)
    mixing = Mixing(Meter.of(model, how, inputs), refit, inputs)
    try:
        search = DepthSearch.of(model, structure, for_blocks(depth, how.samples), data=data, progress=progress)
    except NothingToPruneError as error:  # then the widths alone meet the target, or say that they cannot
        logger.warning("no block goes: %s", error.what)
        return draft(model, structure, for_widths(widths), data=data, progress=progress, baseline=baseline)
    shared = _Shared(model, structure, search, widths, data, progress, baseline)
    mixing.one_after_another(search.steps(), shared.ranked)
    mixing.add("depth alone", None, shared.depth_alone)
    dropping = shared.dropping() if any(mix.deep for mix in mixing.tried) else None
    mixing.add("measured widths alone", None, partial(shared.measured, dropping))
    for each in () if dropping is None else dropping.proposals:
        if (deep := search.without(each.gone)) is not None:
            mixing.add(each.name, deep, partial(shared.as_proposed, each, dropping.scores if dropping else {}))
    best = mixing.best()
    if best.steps and not is_met(best):
        mixing.add(f"{best.gone}, widths measured", best.deep, partial(shared.measured, None))
        best = mixing.best()
    made: Draft = best.made
    told = () if dropping is None else dropping.told
    return replace(made, remarks=(*mixing.remarks(best, told), *made.remarks), damage=best.damage)


@dataclass(frozen=True, eq=False)
class _Shared:
    """Whole plans within one target over depth and widths, in the ways in which they are made."""

    model: nn.Module
    structure: Structure
    search: DepthSearch
    widths: Options
    data: Sequence[Any] | None
    progress: Any
    baseline: Baseline

    def ranked(self, deep: Deep | None) -> Draft:
        """Widths by their scores, after ``deep``."""
        return self._after(deep, self.widths.replaced(allocation="ranked"))

    def measured(self, dropping: Dropping | None, deep: Deep | None) -> Draft:
        """Widths by what each damages, after ``deep``; ``dropping`` is told what was measured."""
        if deep is not None:
            return self._after(deep, self.widths)
        asked = for_widths(self.widths)
        _check_allocation(asked, self.structure)
        known = (self.model, self.structure, self.data, self.progress, self.baseline)
        return _one_draft(*known, None, asked, _More(dropping=dropping))

    def depth_alone(self, deep: Deep | None) -> Draft:
        """The target met without any width."""
        found = self.search.settled(self.baseline)
        return Draft(found.plan, found.kept, self.structure, None, (), found.scorer, found.certificate)

    def dropping(self) -> Dropping:
        """What may be dropped beside widths; nothing where so much of it has to go that a program is no help."""
        options, choice = self.search.options, self.search.choice
        most = caps_of(choice.groups, self.structure, options)
        drops = [] if any(least_of(choice.groups, options).values()) else list(self.search.alone())
        return Dropping(drops, choice.cover, most)

    def as_proposed(self, proposal: Proposal, known: Mapping[str, Tensor], deep: Deep | None) -> Draft:
        """What a program chose, in the model that is left; by ranking there where its groups are other ones."""
        assert deep is not None
        with applied(self.model, deep.plan):
            left = traced_again(self.model, self.structure)
            kept, scores = carried(left, self.structure, deep.plan, proposal.kept, known)
            if all(group.name in scores for group in choose(left, self.widths.scope)):
                scorer = criterion(for_widths(self.widths).choice.scorer)
                asked = for_widths(self.widths).replaced(allocation="ranked", scorer=Scored(scores, scorer))
                made = _one_draft(self.model, left, None, self.progress, self.baseline, None, asked, _More(wanted=kept))
                made = replace(made, scorer=scorer)
                return replace(made, plan=compose(deep.plan, made.plan), certificate=deep.certificate)
        return self.ranked(deep)

    def _after(self, deep: Deep | None, asked: Options) -> Draft:
        given: Any = {"data": self.data, "progress": self.progress, "baseline": self.baseline}
        if deep is None:
            return draft(self.model, self.structure, for_widths(asked), **given)
        return _widths_after(self.model, self.structure, deep, asked, **given)


@dataclass(frozen=True, eq=False)
class _More:
    """What a draft of widths is made with where depth goes too.

    ``wanted`` are units to keep, in the place of a choice; ``dropping`` is told what was measured.
    """

    wanted: Mapping[str, Tensor] | None = None
    dropping: Dropping | None = None


def _widths_after(
    model: nn.Module,
    structure: Structure,
    deep: Deep | Draft,
    options: Options,
    data: Any,
    progress: Any,
    baseline: Baseline | None = None,
) -> Draft:
    """``deep``, and then widths of what it leaves: the model is without these blocks while they are chosen."""
    with applied(model, deep.plan):
        left = traced_again(model, structure)
        made = draft(model, left, for_widths(options), data=data, progress=progress, baseline=baseline)
    return replace(made, plan=compose(deep.plan, made.plan), certificate=deep.certificate)


def traced_again(model: nn.Module, structure: Structure) -> Structure:
    """The structure of ``model`` as it stands, by what was known for ``structure``."""
    table = TABLE.with_(structure.brought)
    trace = record(model, structure.inputs)
    return coupled(model, trace, structure.inputs, table, free_outputs=structure.free_outputs)


def _one_draft(
    model: nn.Module,
    structure: Structure,
    data: Iterable[Any] | None,
    progress: Any,
    baseline: Baseline | None,
    sizes: Mapping[str, int] | None,
    options: Options,
    more: _More = _More(),
) -> Draft:
    chosen = choose(structure, options.scope)
    candidates = len(chosen)
    checked = check_symmetry(model, structure, chosen, options)
    if checked is not None and checked.broken:
        logger.warning("symmetry does not hold for %s: these groups are left alone", ", ".join(checked.broken))
        chosen = tuple(g for g in chosen if g.name not in checked.broken)
    if options.scope.target is not None and not chosen:
        raise nothing_to_prune(structure, checked)
    words = words_of(model)
    choice = options.choice
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
        if how := as_measured(choice.allocation):
            samples = measured_inputs(structure, data, how, choice.seed)
            refit = as_compensation(options.cutting.compensate)
            asked = Choosing(model, structure, scores, gauge, words, how, refit, samples)
            measured = MeasuredAim(asked, Meter.of(model, how, samples), remarks, progress, dropping=more.dropping)
            found, refused = _within_target(model, structure, chosen, scores, conditions, measured, words)
        elif more.wanted is not None:
            aim = partial(_as_wanted, structure, gauge, scores, more.wanted)
            found, refused = _within_target(model, structure, chosen, scores, conditions, aim, words)
        else:
            timed = _is_timed(structure, options, baseline)
            fixed = _Fixed(model, structure, chosen, scores, conditions, words)
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


def _check_allocation(options: Options, structure: Structure) -> None:
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


@dataclass(frozen=True, eq=False)
class _Fixed:
    """All that stays the same while one target is aimed at again with other limits."""

    model: nn.Module
    structure: Structure
    chosen: Sequence[Group]
    scores: Mapping[str, Tensor]
    conditions: Conditions
    words: Words | None

    def __call__(self, gauge: Gauge) -> tuple[Settled | None, list[Frozen]]:
        aim = partial(_ranked, self.structure, gauge, self.scores)
        return _within_target(self.model, self.structure, self.chosen, self.scores, self.conditions, aim, self.words)


def _is_timed(structure: Structure, options: Options, baseline: Baseline) -> bool:
    """Whether a plan is held against the clock: in one step from the very model that the limit speaks of.

    Widths that must be even, or that are a step on the way, are left where the table of operators puts them.
    """
    one_step = options.cutting.steps == 1 and not options.choice.uniform
    return one_step and baseline.pace is not None and baseline.is_of(structure)


def _within_target(
    model: nn.Module,
    structure: Structure,
    chosen: Sequence[Group],
    scores: Mapping[str, Tensor],
    conditions: Conditions,
    aim: Aim,
    words: Words | None,
) -> tuple[Settled | None, list[Frozen]]:
    def aimed(groups: Sequence[Group]) -> dict[str, Tensor]:
        return aim(groups, conditions if len(groups) == len(chosen) else conditions.about(groups))

    return settled_within(model, structure, chosen, aimed, scores, words)


def _ranked(
    structure: Structure, gauge: Gauge, scores: Mapping[str, Tensor], groups: Sequence[Group], conditions: Conditions
) -> dict[str, Tensor]:
    return select_for_target(structure, groups, scores=scores, gauge=gauge, conditions=conditions)


def _as_wanted(
    structure: Structure,
    gauge: Gauge,
    scores: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    groups: Sequence[Group],
    conditions: Conditions,
) -> dict[str, Tensor]:
    """The wanted units of ``groups``, widened as far as the limits allow; by ranking where they do not meet them."""
    widths = Attainable.of(structure, groups, scores, conditions)
    kept = widths.agreed({group.name: wanted[group.name] for group in groups if group.name in wanted})
    if not gauge.met(gauge.exactly(kept)):
        return _ranked(structure, gauge, scores, groups, conditions)
    return filled_up(structure, kept, widths.allocations, scores, gauge)


def _nothing_asked(ratio: Ratio) -> bool:
    return not any(ratio.values()) if isinstance(ratio, Mapping) else ratio == 0
