"""Plans that remove whole blocks and, of the blocks that stay, residual branches: one plan, certified as one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from prunekit.coupling.blocks import is_inside
from prunekit.coupling.groups import Absence
from prunekit.errors import PlanError, TraceError, VerificationError
from prunekit.plans.contents import Edit, Plan
from prunekit.removal.branch_plans import BranchRemover
from prunekit.removal.certificate import Certificate, Rerun
from prunekit.removal.covering import Unit
from prunekit.removal.largest_set import Kept, units_gone
from prunekit.removal.maps import stand_ins
from prunekit.removal.removal_plans import Remover

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class JointRemover:
    """Makes certified plans for one model in which some blocks go, and branches of those that stay.

    In the place of units of ``mapped`` that go stands an affine map.
    """

    blocks: Remover
    branches: BranchRemover
    mapped: frozenset[Unit] = frozenset()

    @classmethod
    def of(cls, trial: Rerun) -> JointRemover:
        """Raises what forward raises."""
        return cls(Remover.of(trial), BranchRemover.of(trial))

    def planned(self, kept: Kept) -> tuple[Plan, Certificate]:
        """The plan that keeps these units of each named group, certified against the model with blocks passed by and
        branches silenced at once.

        No branch of ``kept`` that goes lies in a block that does. Raises VerificationError or TraceError where no way
        to number what is left gives that model, or where no map can stand.
        """
        trial = self.blocks.trial
        depth = trial.structure.depth
        mapped = [
            (depth.group(at), u) for at in kept for u in units_gone(depth.group(at), kept[at]) if (at, u) in self.mapped
        ]
        plain = self._without_maps(kept)
        of_blocks = {name: units for name, units in plain.items() if not depth.group(name).branches}
        of_branches = {name: units for name, units in plain.items() if name not in of_blocks}
        if not mapped and not (of_blocks and of_branches):
            return self.blocks.planned(of_blocks) if of_blocks else self.branches.planned(of_branches)
        maps = stand_ins(mapped, trial.structure)
        gone = self.branches.gone(of_branches)
        silenced = [*gone, *(group.branches[unit] for group, unit in mapped if group.branches)]
        passed_by = [group.places[unit] for group, unit in mapped if not group.branches]
        first: Exception | None = None
        for shallow in self._shallow(of_blocks):
            blocks = [path for removal in shallow.removals for path in removal.gone]
            absences = tuple(each for branch in gone for each in branch.modules if not is_inside(each.module, blocks))
            every = (*absences, *maps)
            ways = [
                x
                for each in (every, self.branches.typed(every))
                for x in self._plans(shallow, blocks, each, of_branches)
            ]
            for plan in dict.fromkeys(ways):
                try:
                    return plan, trial.certify(plan, silenced, passed_by)
                except (VerificationError, TraceError, PlanError) as error:
                    logger.debug("a way to remove blocks and branches does not hold: %s", error)
                    first = first or error
        assert first is not None
        raise first

    def _without_maps(self, kept: Kept) -> Kept:
        """``kept`` as if what has a map in its place stayed; groups that lose nothing else are left out."""
        depth, found = self.blocks.trial.structure.depth, {}
        for name, units in kept.items():
            group = depth.group(name)
            gone = [unit for unit in units_gone(group, units) if (name, unit) not in self.mapped]
            if gone:
                left = [unit for unit in range(group.size) if unit not in gone]
                found[name] = torch.tensor(left, dtype=torch.int64, device="cpu")
        return found

    def _shallow(self, of_blocks: Kept) -> Iterator[Plan]:
        """The ways to take these blocks out of their containers; where there are none, nothing is."""
        if not of_blocks:
            yield self.branches.made({}, (), ())
        for level, counters in self.blocks.ways(of_blocks) if of_blocks else ():
            yield self.blocks.made(of_blocks, level, counters)

    def _plans(
        self, shallow: Plan, blocks: Sequence[str], absences: Sequence[Absence], of_branches: Kept
    ) -> Sequence[Plan]:
        """The plan with numbers as the blocks leave them, and with those of the parts that are left without a gap."""
        absent = [each.module for each in absences]
        edits = tuple(edit for edit in shallow.edits if not is_inside(edit.module, absent))
        made = self.branches.made(of_branches, absences, edits)
        joined = replace(made, widths=(*shallow.widths, *made.widths), removals=shallow.removals, cuts=shallow.cuts)
        joined = replace(joined, shortenings=shallow.shortenings)
        anew: dict[tuple[str, str], Edit] = {(edit.module, edit.attribute): edit for edit in edits}
        anew |= {(e.module, e.attribute): e for e in self.branches.numbered_anew([*blocks, *absent])}
        return joined, replace(joined, edits=tuple(anew.values()))
