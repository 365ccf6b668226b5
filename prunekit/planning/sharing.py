"""A target over depth and widths: plans made in several ways, of which the one that damages least is taken."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from torch import Tensor, nn

from prunekit.allocation.measuring import Meter
from prunekit.compensation.settings import as_compensation
from prunekit.coupling.structure import Structure
from prunekit.errors import InputError, NothingToPruneError, SelectionError
from prunekit.inputs import Inputs
from prunekit.options import Options
from prunekit.options.measured import as_measured
from prunekit.planning.candidates import choose
from prunekit.planning.depth_by_damage import as_draft, droppable
from prunekit.planning.depth_criteria import for_blocks, for_widths
from prunekit.planning.depth_search import Deep, DepthSearch
from prunekit.planning.dropping import Dropping, Proposal, carried
from prunekit.planning.measured import measured_inputs, other_samples
from prunekit.planning.mixing import Mixing, is_met
from prunekit.planning.scoring import scored_by
from prunekit.planning.width_drafts import (
    Draft,
    More,
    check_allocation,
    one_draft,
    traced_again,
    widths_after,
    widths_draft,
)
from prunekit.plans.composition import compose
from prunekit.quantities.gauge import Baseline, Gauge
from prunekit.scorers import Scored
from prunekit.surgery.cutting import applied

logger = logging.getLogger(__name__)


def shared_target(
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
    inputs = measured_inputs(model, structure, data, how, choice.seed)
    has_maps = depth.cutting.replace is not None
    fits = other_samples(model, structure, data, refit, choice.seed, inputs) if has_maps or refit else inputs
    mixing = Mixing(Meter.of(model, how, inputs, refit, fits), len(inputs))
    asked = for_blocks(depth.replaced(replace=None), how.samples)
    try:
        search = DepthSearch.of(model, structure, asked, data=data, progress=progress, maps=has_maps)
    except NothingToPruneError as error:  # then the widths alone meet the target, or say that they cannot
        logger.warning("no block goes: %s", error.what)
        return widths_draft(model, structure, for_widths(widths), data=data, progress=progress, baseline=baseline)
    known = (data, progress, baseline, mixing.meter)
    shared = _Shared(model, structure, search, widths, *known, fits if has_maps else None)
    mixing.one_after_another(search.steps(), shared.ranked)
    mixing.add("depth alone", None, shared.depth_alone)
    dropping = droppable(search, with_maps=has_maps) if any(mix.deep for mix in mixing.tried) else None
    mixing.add("measured widths alone", None, partial(shared.measured, dropping))
    for each in () if dropping is None else dropping.proposals:
        if (deep := search.without(each.gone, each.mapped)) is not None:
            mixing.add(each.name, deep, partial(shared.as_proposed, each, dropping.scores if dropping else {}))
    best = mixing.best()
    if best.steps and not is_met(best):
        mixing.add(f"{best.gone}, widths measured", best.deep, partial(shared.measured, None))
        best = mixing.best()
    made: Draft = best.made
    told = () if dropping is None else dropping.told
    return replace(
        made,
        remarks=(*mixing.remarks("depth and widths within one target", best, told), *made.remarks),
        damage=best.damage,
    )


@dataclass(eq=False)
class _Shared:
    """Whole plans within one target over depth and widths, in the ways in which they are made.

    Widths are scored once, in the original. A block that goes moves what later layers read, and so their true scores;
    every whole set is measured, and scores anew for each would cost more than all of that.
    """

    model: nn.Module
    structure: Structure
    search: DepthSearch
    widths: Options
    data: Sequence[Any] | None
    progress: Any
    baseline: Baseline
    meter: Meter
    fits: Sequence[Inputs] | None

    @cached_property
    def scored(self) -> Scored:
        """Every width that may go, by the criterion that was asked for."""
        asked, model = for_widths(self.widths), self.model
        groups = choose(self.structure, asked.scope)
        given = asked.choice.scorer, model, self.structure, groups, self.data, asked.choice.seed, self.progress
        scorer, scores = scored_by(*given)
        return Scored(scores, scorer)

    def ranked(self, deep: Deep | None) -> Draft:
        """Widths by their scores, after ``deep``."""
        return self._after(deep, self.widths.replaced(allocation="ranked"))

    def measured(self, dropping: Dropping | None, deep: Deep | None) -> Draft:
        """Widths by what each damages, after ``deep``; ``dropping`` is told what was measured."""
        if deep is not None:
            return self._after(deep, self.widths)
        asked = for_widths(self.widths).replaced(scorer=self.scored)
        check_allocation(asked, self.structure)
        known = (self.model, self.structure, self.data, self.progress, self.baseline)
        return self._told(
            one_draft(*known, None, asked, More(dropping=dropping, fits=self.meter.fits, sums=self.meter.sums))
        )

    def depth_alone(self, deep: Deep | None) -> Draft:
        """The target met without any width."""
        return as_draft(self.search.settled(self.baseline), self.structure)

    def as_proposed(self, proposal: Proposal, known: Mapping[str, Tensor], deep: Deep | None) -> Draft:
        """What a program chose, in the model that is left; by ranking there where its groups are other ones."""
        assert deep is not None
        try:
            made = self._carried(proposal, known, deep)
        except InputError as error:
            return self._without_widths(deep, error)
        return made or self.ranked(deep)

    def _carried(self, proposal: Proposal, known: Mapping[str, Tensor], deep: Deep) -> Draft | None:
        with applied(self.model, deep.plan, self.fits):
            left = traced_again(self.model, self.structure)
            kept, scores = carried(left, self.structure, deep.plan, proposal.kept, known)
            if all(group.name in scores for group in choose(left, self.widths.scope)):
                asked = for_widths(self.widths).replaced(allocation="ranked", scorer=Scored(scores, self.scored.scorer))
                known_here = (self.model, left, None, self.progress, self.baseline)
                made = self._told(one_draft(*known_here, None, asked, More(wanted=kept)))
                return replace(made, plan=compose(deep.plan, made.plan), certificate=deep.certificate)
        return None

    def _told(self, made: Draft) -> Draft:
        """With the criterion that the scores came from."""
        assert self.scored.scorer is not None
        return replace(made, scorer=self.scored.scorer) if isinstance(made.scorer, Scored) else made

    def _after(self, deep: Deep | None, asked: Options) -> Draft:
        given: Any = {"data": self.data, "progress": self.progress, "baseline": self.baseline}
        if deep is None:
            scored = for_widths(asked).replaced(scorer=self.scored)
            return self._told(widths_draft(self.model, self.structure, scored, **given))

        def known(left: Structure) -> Scored | None:
            (scores,) = carried(left, self.structure, deep.plan, self.scored.scores)
            found = all(group.name in scores for group in choose(left, for_widths(asked).scope))
            return Scored(scores, self.scored.scorer) if found else None

        try:
            fits = self.fits
            return self._told(widths_after(self.model, self.structure, deep, asked, fits=fits, known=known, **given))
        except InputError as error:
            return self._without_widths(deep, error)

    def _without_widths(self, deep: Deep, error: InputError) -> Draft:
        """``deep`` alone, where all widths of a role went with it. Raises SelectionError where that is not enough."""
        target = self.widths.scope.target
        assert target is not None
        with applied(self.model, deep.plan, self.fits):
            gauge = Gauge.of(self.model, traced_again(self.model, self.structure), target, self.baseline)
            if not gauge.met(gauge.exactly({})):
                raise SelectionError(error.what, where=error.where, hint=error.hint) from error
        return as_draft(deep, self.structure)
