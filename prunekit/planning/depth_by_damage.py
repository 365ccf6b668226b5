"""A target over depth alone by measured damage: what a program chose, and what goes in the order of the criterion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from prunekit.allocation.measuring import Meter
from prunekit.coupling.structure import Structure
from prunekit.options import Options
from prunekit.options.measured import Measured
from prunekit.planning.depth_bounds import caps_of, least_of
from prunekit.planning.depth_search import Deep, DepthSearch, deep_draft
from prunekit.planning.dropping import Drop, Dropping
from prunekit.planning.measured import measured_inputs, other_samples
from prunekit.planning.mixing import Mixing
from prunekit.planning.variants import Attainable
from prunekit.planning.width_drafts import Draft
from prunekit.quantities.gauge import Baseline, Gauge


def depth_within_target(
    model: nn.Module,
    structure: Structure,
    options: Options,
    how: Measured,
    data: Sequence[Any] | None,
    progress: Any,
    baseline: Baseline | None,
) -> Draft:
    """The set of blocks and branches within the target that damages least, of those measured as wholes.

    Affine maps stand in the place of some where the options say so. Raises what ``deep_draft`` raises.
    """
    target, seed = options.scope.target, options.choice.seed
    assert target is not None
    baseline = baseline or Baseline.of(model, structure, target, options.cutting.latency)
    gauge = Gauge.of(model, structure, target, baseline)
    if gauge.met(gauge.exactly({})):  # says so, where nothing else has to go
        return as_draft(
            deep_draft(model, structure, options.replaced(replace=None), data=data, baseline=baseline), structure
        )
    inputs = measured_inputs(model, structure, data, how, seed)
    has_maps = options.cutting.replace is not None
    fits = other_samples(model, structure, data, None, seed, inputs) if has_maps else None
    mixing = Mixing(Meter.of(model, how, inputs, fits=fits or ()), len(inputs))
    asked = options.replaced(replace=None)
    search = DepthSearch.of(model, structure, asked, data=data, progress=progress, maps=has_maps)
    mixing.add("in the order of the criterion", None, lambda _: as_draft(search.settled(baseline), structure))
    dropping = droppable(search, with_maps=has_maps)
    dropping.propose(Attainable(structure, (), {}, {}, ()), (), (), gauge, how, mixing.meter, progress)
    for each in dropping.proposals:
        if (deep := search.without(each.gone, each.mapped)) is not None:
            mixing.add(each.name, deep, partial(_as_proposed, structure))
    best = mixing.best()
    made: Draft = best.made
    remarks = mixing.remarks("depth within a target", best, dropping.told)
    return replace(made, remarks=(*remarks, *made.remarks), damage=best.damage)


def _as_proposed(structure: Structure, deep: Deep | None) -> Draft:
    assert deep is not None
    return as_draft(deep, structure)


def as_draft(deep: Deep, structure: Structure) -> Draft:
    """A plan of depth alone as a draft."""
    return Draft(deep.plan, deep.kept, structure, None, (), deep.scorer, deep.certificate)


def droppable(search: DepthSearch, *, with_maps: bool) -> Dropping:
    """What a program may drop; nothing where so much of it has to go that a program is no help.

    ``with_maps`` where affine maps may stand for some.
    """
    options, choice = search.options, search.choice
    most = caps_of(choice.groups, search.structure, options)
    alone = [] if any(least_of(choice.groups, options).values()) else search.alone()
    drops = [Drop(unit, plan, choice.with_map(unit) if with_maps else None) for unit, plan in alone]
    return Dropping(drops, choice.cover, most)
