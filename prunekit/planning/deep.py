"""Depth in a plan: how far the options ask for whole blocks, which go, and the plan without them."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from prunekit.coupling.groups import Frozen, Group
from prunekit.coupling.structure import Structure
from prunekit.errors import InputError, NothingToPruneError, PlanError, ScorerError, SelectionError
from prunekit.options import Options
from prunekit.planning.depth_bounds import caps_of, check_enough_are_left, least_of, left_out, most_of, too_few
from prunekit.planning.depth_choice import DepthChoice
from prunekit.planning.scoring import statistics_of
from prunekit.planning.symmetry_check import SYMMETRY_MACS, is_meta
from prunekit.plans.contents import Plan
from prunekit.quantities.gauge import Baseline, Gauge
from prunekit.quantities.limits import parse_target
from prunekit.registry import criterion
from prunekit.removal.branch_plans import BranchRemover
from prunekit.removal.certificate import Certificate, Rerun
from prunekit.removal.covering import Cover, Unit, is_joint
from prunekit.removal.joint_plans import JointRemover
from prunekit.removal.largest_set import Certifying
from prunekit.removal.maps import MapRemover
from prunekit.removal.ranking import Order, scores_depth
from prunekit.removal.removal_plans import Remover, hooked
from prunekit.scorers import BlockInfluence, Damage, DisturbedTaylor, Scorer
from prunekit.selection.ratio import check_keys, ratios

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Deep:
    """A plan that removes blocks: what is kept by group, its certificate, and the criterion that chose."""

    plan: Plan
    kept: dict[str, Tensor]
    certificate: Certificate
    scorer: Scorer


def deep_draft(
    model: nn.Module,
    structure: Structure,
    options: Options,
    *,
    data: Iterable[Any] | None,
    progress: Any = None,
    baseline: Baseline | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Deep:
    """The blocks that go at a ratio of all that may, or until a target is met, those of least importance first.

    Raises NothingToPruneError where none can go, SelectionError for a target out of reach, PlanError for a model
    without weights, ScorerError for a criterion of widths.
    """
    search = DepthSearch.of(model, structure, options, data=data, progress=progress)
    made = search.settled(baseline, sizes)
    for each in search.choice.refused:
        logger.warning("%s is left alone: %s", each.name, each.reason)
    return made


@dataclass(eq=False)
class DepthSearch:
    """Blocks and branches that may go, and the order in which they do: what is measured for it is measured once."""

    model: nn.Module
    structure: Structure
    options: Options
    choice: DepthChoice
    order: Order
    scorer: Scorer

    @classmethod
    def of(
        cls,
        model: nn.Module,
        structure: Structure,
        options: Options,
        *,
        data: Iterable[Any] | None,
        progress: Any,
        maps: bool = False,
    ) -> DepthSearch:
        """``maps`` for one in which some of what goes may have an affine map in its place.

        Raises what ``deep_draft`` raises, but for a target or ratio.
        """
        choice, order, asked = _begun(model, structure, options, data, progress, maps)
        return cls(model, structure, options, choice, order, asked)

    def settled(self, baseline: Baseline | None = None, sizes: Mapping[str, int] | None = None) -> Deep:
        """As many units gone as the options' ratio or target says. Raises what ``deep_draft`` raises."""
        return self._until(_enough(self.model, self.structure, self.options, baseline, sizes))

    def steps(self) -> Iterator[Deep]:
        """The plan without one unit, without two, and so on as far as they may go.

        Raises NothingToPruneError where none can.
        """
        pool = frozenset(group.name for group in self.choice.groups)
        every, count = sum(group.size for group in self.choice.groups), 0
        while count < every:
            count += 1
            try:
                made = self._until(_Until(self.choice.groups, {pool: count}, None))
            except NothingToPruneError:
                if count == 1:
                    raise
                return
            gone = sum(width.before - width.after for width in made.plan.widths)
            if gone < count:
                return
            count = gone
            yield made

    def alone(self) -> Iterator[tuple[Unit, Plan]]:
        """Every unit that may go, with the certified plan in which it alone does."""
        most = caps_of(self.choice.groups, self.structure, self.options)
        for group in self.choice.groups:
            for unit in range(group.size if most[group.name] else 0):
                if (group.name, unit) in self.choice.never:
                    continue
                done = self.choice.certified([(group.name, unit)])
                if done is not None:
                    yield (group.name, unit), done[0]

    def without(self, gone: Sequence[Unit], mapped: Collection[Unit] = ()) -> Deep | None:
        """The plan without these units, ``mapped`` of them with a map in their place.

        None where some of them cannot go together, or more than may.
        """
        most = caps_of(self.choice.groups, self.structure, self.options)
        closed = self.choice.cover.closed(gone)
        if any(sum(at == name for at, _ in closed) > count for name, count in most.items()):
            return None
        done = self.choice.certified(gone, mapped)
        return None if done is None else _as_deep(self.choice, *done, gone, self.scorer)

    def _until(self, enough: _Until) -> Deep:
        plan, certificate, gone = _settled_blocks(self.choice, self.order, self.structure, self.options, enough)
        return _as_deep(self.choice, plan, certificate, gone, self.scorer)


def _begun(
    model: nn.Module, structure: Structure, options: Options, data: Iterable[Any] | None, progress: Any, maps: bool
) -> tuple[DepthChoice, Order, Scorer]:
    """Blocks that may go, and the order in which they do."""
    if is_meta(model):
        raise PlanError(
            "the model is on the meta device, and blocks are certified on numbers", hint="build it on a device"
        )
    asked = criterion_of_depth(options)
    groups = _groups_asked(structure, options)
    perturbed = options.cutting.verify == "full" or structure.cost().macs <= SYMMETRY_MACS
    trial = Rerun(model, structure, options.choice.seed, perturbed and options.cutting.verify != "shapes")
    if not groups:
        raise _no_blocks(structure, ())
    for name in ("min_ratio", "max_ratio"):
        if isinstance(bound := getattr(options.scope, name), Mapping):
            check_keys(bound, (*structure.groups, *structure.depth.groups), name)
    limits = parse_target(options.scope.target) if options.scope.target is not None else ()
    quantity = limits[0].quantity if limits else "params"
    cover = Cover.of(structure, groups, caps_of(groups, structure, options), quantity)
    choice = DepthChoice(groups, JointRemover.of(trial) if maps else _remover(trial, groups, options), cover)
    for frozen in (each for group in groups for each in hooked(model, group)):
        choice.refused.append(frozen)
        choice.never |= {(g.name, g.places.index(frozen.name)) for g in groups if frozen.name in g.places}
    choice.never |= left_out(structure, groups, options, cover)
    experts = [group for group in groups if group.routes]  # measured in one sweep
    statistics = statistics_of(model, structure, experts, asked, data, options.choice.seed, progress)
    return choice, Order(groups, asked, statistics, cover), asked


def _remover(trial: Rerun, groups: Sequence[Group], options: Options) -> Certifying:
    """What makes the plans. Raises InputError for maps and a target, which does not count them."""
    if options.cutting.replace is None:
        if is_joint(groups):
            return JointRemover.of(trial)
        return BranchRemover.of(trial) if groups[0].branches else Remover.of(trial)
    if options.scope.target is not None:
        raise InputError(
            "a target does not count the affine maps that stand for what goes",
            where="replace",
            hint="give a ratio, or leave replace out",
        )
    return MapRemover.of(trial)


def _groups_asked(structure: Structure, options: Options) -> tuple[Group, ...]:
    """The groups of the roles that are asked for."""
    roles = options.scope.roles or ()
    return tuple(group for group in structure.depth.groups if group.role in roles)


def _as_deep(choice: DepthChoice, plan: Plan, certificate: Certificate, gone: Sequence[Unit], asked: Scorer) -> Deep:
    plan = replace(plan, frozen=(*plan.frozen, *choice.refused))
    return Deep(plan, choice.kept(gone), certificate, asked)


def criterion_of_depth(options: Options) -> Scorer:
    """The criterion for depth: the one that is asked for, or ``Damage()`` in the place of the default for widths.

    Raises ScorerError for one that says nothing of what is asked for.
    """
    given = options.choice.scorer
    asked = criterion(given)
    if scores_depth(asked, options.scope.roles or ()):
        return asked
    if given is None or isinstance(asked, DisturbedTaylor):
        return Damage()
    raise ScorerError(
        f"{type(asked).__name__} scores units of a width, and says nothing of whole blocks",
        where="scorer",
        hint="damage, damage_greedy, block_influence or random, of experts alone reap or routed_frequency; prune "
        "widths in a call of their own",
    )


def for_blocks(options: Options, samples: int | None = None) -> Options:
    """Options for blocks that go beside widths: a criterion of widths leaves them to ``Damage``, on so many samples."""
    is_theirs = scores_depth(criterion(options.choice.scorer), options.scope.roles or ())
    return options if is_theirs else options.replaced(scorer=Damage(samples=samples))


def for_widths(options: Options) -> Options:
    """Options for widths that come after blocks: a criterion of blocks leaves them to the default."""
    asked = options.choice.scorer
    of_widths = asked is None or not isinstance(criterion(asked), (Damage, BlockInfluence))
    options = options.replaced(replace=None)
    return options if of_widths else options.replaced(scorer=None)


def _no_blocks(structure: Structure, refused: Sequence[Frozen]) -> NothingToPruneError:
    rows = [*structure.depth.frozen, *refused]
    lines = [f"{f.name}: {f.reason}" for f in rows[:40]] or ["no list of modules has a residual block as its entry"]
    return NothingToPruneError("no block can go:\n    " + "\n    ".join(lines), hint="prune widths: leave roles out")


class _Until:
    """When enough is gone: so many of the groups of each pool, or a target met."""

    def __init__(self, groups: Sequence[Group], counts: Mapping[frozenset[str], int], gauge: Gauge | None) -> None:
        self.pools, self.counts, self.gauge = list(counts), counts, gauge
        if gauge is not None:
            self.pools = [frozenset(group.name for group in groups)]

    def __call__(self, pool: frozenset[str], gone: Sequence[Unit], kept: Mapping[str, Tensor]) -> bool:
        if self.gauge is None:
            return sum(name in pool for name, _ in gone) >= self.counts[pool]
        return self.gauge.met(self.gauge.exactly(kept))


def _enough(
    model: nn.Module,
    structure: Structure,
    options: Options,
    baseline: Baseline | None,
    sizes: Mapping[str, int] | None,
) -> _Until:
    target, groups = options.scope.target, _groups_asked(structure, options)
    if target is not None:
        baseline = baseline or Baseline.of(model, structure, target, options.cutting.latency)
        return _Until(groups, {}, Gauge.of(model, structure, target, baseline))
    shares = ratios(groups, options.scope.share)
    whole = {group.name: (sizes or {}).get(group.name, group.size) for group in groups}
    counts = {}
    for share in dict.fromkeys(shares[g.name] or 0 for g in groups):
        pool = [g for g in groups if (shares[g.name] or 0) == share]
        check_enough_are_left(pool, share)
        asked = float(share) * sum(whole[g.name] for g in pool)
        earlier = sum(whole[g.name] - g.size for g in pool)
        count = math.floor(asked + (0.5 if options.choice.rounding == "nearest" else 0)) - earlier
        counts[frozenset(g.name for g in pool)] = max(0, count)
    return _Until(groups, counts, None)


def _settled_blocks(
    choice: DepthChoice, order: Order, structure: Structure, options: Options, enough: _Until
) -> tuple[Plan, Certificate, list[Unit]]:
    """Takes units until it is enough, and again without those that turn out to have to stay."""
    most, least = most_of(choice.groups, structure, options), least_of(choice.groups, options)
    while True:
        gone: list[Unit] = []
        for name, count in least.items():
            gone += order.taken(gone, choice.never, {at: count if at == name else 0 for at in most})
            if sum(at == name for at, _ in choice.cover.closed(gone)) < count or count > most[name]:
                raise too_few(name, count, choice.refused)
        for pool in enough.pools:
            upcoming = order.taken(gone, choice.never, {name: most[name] if name in pool else 0 for name in most})
            while not enough(pool, choice.cover.closed(gone), choice.kept(gone)):
                unit = next(upcoming, None)
                if unit is None:
                    break
                gone.append(_last_or(unit, gone, choice, order, enough, most))
        if not gone:
            raise _nothing_goes(choice, structure, options)
        done = choice.certified(gone)
        if done is None:
            continue
        if enough.gauge is not None and not enough.gauge.met(enough.gauge.exactly(choice.kept(gone))):
            raise _out_of_reach(choice, gone, enough.gauge)
        return (*done, gone)


def _last_or(
    unit: Unit, gone: Sequence[Unit], choice: DepthChoice, order: Order, enough: _Until, most: Mapping[str, int]
) -> Unit:
    """``unit``, or where it meets the target and is larger than it need be, the one that damages least of such."""
    gauge = enough.gauge
    if gauge is None or not choice.cover.inside:
        return unit

    def ends(other: Unit) -> bool:
        return gauge.met(gauge.exactly(choice.kept([*gone, other])))

    return (order.last(gone, choice.never, most, ends) if ends(unit) else None) or unit


def _nothing_goes(choice: DepthChoice, structure: Structure, options: Options) -> NothingToPruneError:
    if choice.refused or len(choice.never) == sum(g.size for g in choice.groups):
        return _no_blocks(structure, choice.refused)
    every = sum(group.size for group in choice.groups)
    return NothingToPruneError(
        f"the ratio or target takes none of {every} blocks",
        where=f"ratio={options.scope.share}" if options.scope.target is None else f"target={options.scope.target}",
        hint=f"a ratio of {1 / every:.2g} takes one block",
    )


def _out_of_reach(choice: DepthChoice, gone: Sequence[Unit], gauge: Gauge) -> SelectionError:
    usage = gauge.exactly(choice.kept(gone))
    places = {(g.name, u): path for g in choice.groups for u, path in enumerate(g.places)}
    over = ", ".join(f"{name} {usage[name]:.6g}" for name, most in gauge.limits.items() if usage[name] > most)
    set_gone = ", ".join(places[unit] for unit in gone)
    return SelectionError(
        f"the target is out of reach by depth alone: without {set_gone} there are still {over}",
        where=", ".join(f"{name}<={most:.6g}" for name, most in gauge.limits.items()),
        hint="raise the limit, or prune widths of what is left",
    )
