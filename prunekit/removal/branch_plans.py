"""Plans that remove residual branches: modules that add to a stream, and what numbers the modules that are left."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from prunekit.coupling.blocks import is_inside
from prunekit.coupling.groups import Absence, Branch
from prunekit.errors import PlanError, TraceError, VerificationError
from prunekit.modules.containers import place
from prunekit.plans.contents import Edit, Plan, Width, fingerprint
from prunekit.removal.certificate import Certificate, Rerun
from prunekit.removal.largest_set import Kept, units_gone
from prunekit.removal.numbering import PlaceHeld, places_held

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class BranchRemover:
    """Makes certified plans for one model; ``held`` are numbers by container that tell a module its place."""

    trial: Rerun
    held: Mapping[str, tuple[PlaceHeld, ...]]

    @classmethod
    def of(cls, trial: Rerun) -> BranchRemover:
        """What there is to number is found once."""
        containers = trial.structure.trace.containers
        return cls(trial, {at: tuple(places_held(trial.model, at, names)) for at, names in containers.items()})

    def planned(self, kept: Kept) -> tuple[Plan, Certificate]:
        """The plan that keeps these units of each named group, certified.

        As they stand, numbers that tell modules their places in a cache may leave places empty; where that changes
        what the model computes they are numbered anew. Raises VerificationError or TraceError where neither gives the
        model with the branches silenced.
        """
        gone = self.gone(kept)
        return self.certified(kept, [each for branch in gone for each in branch.modules], gone)

    def certified(
        self, kept: Kept, modules: Sequence[Absence], branches: Sequence[Branch], blocks: Sequence[str] = ()
    ) -> tuple[Plan, Certificate]:
        """The plan in which ``modules`` go, against the model with ``branches`` silenced and ``blocks`` passed by."""
        first: Exception | None = None
        numbers = dict.fromkeys([(), tuple(self.numbered_anew([each.module for each in modules]))])
        ways = itertools.product((modules, self.typed(modules)), numbers)
        for plan in dict.fromkeys(self.made(kept, absences, edits) for absences, edits in ways):
            try:
                return plan, self.trial.certify(plan, branches, blocks)
            except (VerificationError, TraceError, PlanError) as error:
                logger.debug("a way to remove the branches does not hold: %s", error)
                first = first or error
        assert first is not None
        raise first

    def typed(self, modules: Sequence[Absence]) -> list[Absence]:
        """The same modules, whose own tensors answer for their type: for a forward that reads ``norm.weight.dtype``."""
        state = [name.rpartition(".") for name in self.trial.structure.trace.state]
        return [replace(each, typed=tuple(own for path, _, own in state if path == each.module)) for each in modules]

    def gone(self, kept: Kept) -> list[Branch]:
        """The branches that go when each named group keeps these units."""
        groups = [(self.trial.structure.depth.group(name), units) for name, units in kept.items()]
        return [group.branches[unit] for group, units in groups for unit in units_gone(group, units)]

    def made(self, kept: Kept, modules: Sequence[Absence], edits: tuple[Edit, ...]) -> Plan:
        """The plan in which ``modules`` go and numbers change as ``edits`` say; nothing is tried."""
        structure = self.trial.structure
        groups = {name: structure.depth.group(name) for name in kept}
        widths = [Width(name, groups[name].role, groups[name].size, tuple(u.tolist())) for name, u in kept.items()]
        frozen = (*structure.frozen, *structure.depth.frozen)
        made = fingerprint(self.trial.model)
        return Plan(made, tuple(widths), (), edits, (), frozen, absences=tuple(modules), tables=structure.tables)

    def numbered_anew(self, absent: Sequence[str]) -> Iterator[Edit]:
        """Numbers in the modules that are left when those at the paths ``absent`` are not: those alike in the entries
        of a container counted without a gap."""
        containers = self.trial.structure.trace.containers
        for container, held in self.held.items():
            entries = [place(container, name) for name in containers[container]]
            for index in held:
                inner = index.module.removeprefix(entries[index.place])
                if is_inside(index.module, absent):
                    continue
                before = sum(is_inside(f"{entry}{inner}", absent) for entry in entries[: index.place])
                if before:
                    yield Edit(index.module, index.attribute, None, index.value, index.value - before)
