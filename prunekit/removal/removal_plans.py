"""Plans that remove blocks: what follows them, tried until a run certifies it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from prunekit.coupling.groups import Frozen, Group
from prunekit.errors import PlanError, TraceError, VerificationError
from prunekit.modules.containers import place
from prunekit.modules.walk import state_tensors
from prunekit.plans.contents import Cut, Edit, Plan, Removal, Shortening, Width, fingerprint
from prunekit.removal.certificate import Certificate, Rerun
from prunekit.removal.largest_set import Kept, units_gone
from prunekit.removal.numbering import Counter, Numbering, numberings

logger = logging.getLogger(__name__)

_ALL, _SURE, _NO_LISTS = range(3)  # numbers and lists that may be chance too; none of these; no lists at all
_COUNTERS = 4  # numbers of blocks that are tried one by one


@dataclass(frozen=True, eq=False)
class Remover:
    """Makes certified plans for one model: which numbers and lists follow its containers is found once."""

    trial: Rerun
    numbering: Mapping[str, Numbering]

    @classmethod
    def of(cls, trial: Rerun) -> Remover:
        """Raises what forward raises."""
        structure = trial.structure
        names = {group.block: structure.trace.containers[group.block] for group in structure.depth.blocks}
        return cls(trial, numberings(trial.model, names, structure.inputs))

    def planned(self, kept: Kept) -> tuple[Plan, Certificate]:
        """The plan that keeps these units of each named group, certified.

        Raises VerificationError or TraceError where no way to number what is left gives the model with the blocks
        passed by.
        """
        first: Exception | None = None
        for level, counters in self.ways(kept):
            plan = self.made(kept, level, counters)
            try:
                return plan, self.trial.certify(plan)
            except (VerificationError, TraceError, PlanError) as error:
                logger.debug("a way to number the blocks that are left does not hold: %s", error)
                first = first or error
        assert first is not None
        raise first

    def ways(self, kept: Kept) -> Iterator[tuple[int, tuple[Counter, ...]]]:
        """What is taken along: how far what may be chance is followed, and which numbers of all blocks are."""
        groups = {group.name: group for group in self.trial.structure.depth.groups}
        mine = [self.numbering[groups[name].block] for name in kept]
        sure = [each.is_sure for one in mine for each in one.indices]
        sure += [each.is_sure for one in mine for each in one.lists]
        unsure = not all(sure)
        levels = [_ALL, *([_SURE] if unsure else []), *([_NO_LISTS] if any(one.lists for one in mine) else [])]
        yield from ((level, ()) for level in levels)
        singles = [one.counters[:_COUNTERS] for one in mine]
        for chosen in itertools.islice(itertools.product(*singles), 2 * _COUNTERS):
            yield from ((level, chosen) for level in levels[:2])

    def made(self, kept: Kept, level: int, counters: Sequence[Counter]) -> Plan:
        """The plan by one of the ``ways``; nothing is tried."""
        model, structure = self.trial.model, self.trial.structure
        removals, edits, shortenings, widths = [], list[Edit](), list[Shortening](), []
        cuts: list[Cut] = []
        for name, units in kept.items():
            group = structure.depth.group(name)
            names = structure.trace.containers[group.block]
            left = _places_left(group, names, units)
            if len(left) == len(names):
                continue
            widths.append(Width(name, group.role, group.size, tuple(units.tolist())))
            removals.append(Removal(group.block, names, left))
            mine = self.numbering[group.block]
            cuts += _rows_that_route(model, group, units)
            edits += _rows_counted(model, group, len(left))
            for index in mine.indices:
                if index.place in left and (index.is_sure or level == _ALL):
                    now = index.value - index.place + left.index(index.place)
                    edits += [Edit(index.module, index.attribute, None, index.value, now)] if now != index.value else []
            for each in mine.lists:
                if level == _ALL or (level == _SURE and each.is_sure):
                    shortenings.append(Shortening(each.module, each.attribute, each.size, left))
            for counter in (c for c in counters if c in mine.counters):
                edits.append(Edit(counter.module, counter.attribute, None, counter.value, len(left)))
        frozen = (*structure.frozen, *structure.depth.frozen)
        return Plan(
            fingerprint(model),
            tuple(widths),
            tuple(cuts),
            tuple(dict.fromkeys(edits)),
            (),
            frozen,
            tuple(removals),
            tuple({(s.module, s.attribute): s for s in shortenings}.values()),
            tables=structure.tables,
        )


def _places_left(group: Group, names: Sequence[str], units: Tensor) -> tuple[int, ...]:
    """Places among all entries of the container that stay, where the group keeps ``units``."""
    gone = {group.places[unit] for unit in units_gone(group, units)}
    return tuple(at for at, name in enumerate(names) if place(group.block, name) not in gone)


def _rows_that_route(model: nn.Module, group: Group, units: Tensor) -> Iterator[Cut]:
    """What chooses among experts keeps the rows of those that are left."""
    if not group.routes:
        return
    route, state = group.routes[0], state_tensors(model)
    for name in (f"{route.router}.weight", f"{route.router}.bias", *route.beside):
        if name in state:
            yield Cut(name, 0, group.size, tuple(units.tolist()))


def _rows_counted(model: nn.Module, group: Group, left: int) -> Iterator[Edit]:
    if group.routes and getattr(model.get_submodule(group.routes[0].router), "out_features", None) == group.size:
        yield Edit(group.routes[0].router, "out_features", None, group.size, left)


def hooked(model: nn.Module, group: Group) -> list[Frozen]:
    """Units on which somebody has put a hook that sees what they give: it would fall silent."""
    reason = "it has a forward hook, which would see nothing any more"
    return [Frozen(path, 1, reason) for unit, path in enumerate(group.places) if _has_hook(model, group, unit)]


def _has_hook(model: nn.Module, group: Group, unit: int) -> bool:
    if not group.branches:
        return bool(model.get_submodule(group.places[unit])._forward_hooks)
    parts = [model.get_submodule(each.module) for each in group.branches[unit].modules]
    return any(inner._forward_hooks for part in parts for inner in part.modules())
