"""Depth in a plan: the blocks and branches that may go, the order in which they do, and the plan without them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from prunekit.coupling.groups import Group
from prunekit.coupling.structure import Structure
from prunekit.errors import InputError, NothingToPruneError, PlanError
from prunekit.options import Options
from prunekit.planning.depth_amount import Until, enough_asked, groups_asked
from prunekit.planning.depth_bounds import caps_of, left_out
from prunekit.planning.depth_choice import DepthChoice
from prunekit.planning.depth_criteria import criterion_of_depth
from prunekit.planning.depth_taken import no_blocks, settled_units
from prunekit.planning.scoring import statistics_of
from prunekit.planning.symmetry_check import is_meta, is_too_large
from prunekit.plans.contents import Plan
from prunekit.quantities.gauge import Baseline
from prunekit.quantities.limits import parse_target
from prunekit.removal.branch_plans import BranchRemover
from prunekit.removal.certificate import Certificate, Rerun
from prunekit.removal.covering import Cover, Unit, is_joint
from prunekit.removal.joint_plans import JointRemover
from prunekit.removal.largest_set import Certifying
from prunekit.removal.maps import MapRemover
from prunekit.removal.ranking import Order
from prunekit.removal.removal_plans import Remover, hooked
from prunekit.scorers import Scorer
from prunekit.selection.ratio import check_keys

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
    gone: Mapping[str, int] | None = None,
) -> Deep:
    """The blocks that go at a ratio of all that may, or until a target is met, those of least importance first.

    Raises NothingToPruneError where none can go, SelectionError for a target out of reach, PlanError for a model
    without weights, ScorerError for a criterion of widths.
    """
    search = DepthSearch.of(model, structure, options, data=data, progress=progress)
    made = search.settled(baseline, sizes, gone)
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

    def settled(
        self,
        baseline: Baseline | None = None,
        sizes: Mapping[str, int] | None = None,
        gone: Mapping[str, int] | None = None,
    ) -> Deep:
        """As many units gone as the options' ratio or target says. Raises what ``deep_draft`` raises."""
        return self._until(enough_asked(self.model, self.structure, self.options, baseline, sizes, gone))

    def steps(self) -> Iterator[Deep]:
        """The plan without one unit, without two, and so on as far as they may go.

        Raises NothingToPruneError where none can.
        """
        pool = frozenset(group.name for group in self.choice.groups)
        every, count = sum(group.size for group in self.choice.groups), 0
        while count < every:
            count += 1
            try:
                made = self._until(Until(self.choice.groups, {pool: count}, None))
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

    def _until(self, enough: Until) -> Deep:
        plan, certificate, gone = settled_units(self.choice, self.order, self.structure, self.options, enough)
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
    groups = groups_asked(structure, options)
    perturbed = options.cutting.verify == "full" or not is_too_large(model, structure)
    trial = Rerun(model, structure, options.choice.seed, perturbed and options.cutting.verify != "shapes")
    if not groups:
        raise no_blocks(structure, ())
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


def _as_deep(choice: DepthChoice, plan: Plan, certificate: Certificate, gone: Sequence[Unit], asked: Scorer) -> Deep:
    plan = replace(plan, frozen=(*plan.frozen, *choice.refused))
    return Deep(plan, choice.kept(gone), certificate, asked)
