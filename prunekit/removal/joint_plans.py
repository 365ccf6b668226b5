"""Plans that remove whole blocks and, of the blocks that stay, residual branches: one plan, certified as one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from prunekit.coupling.blocks import is_inside
from prunekit.coupling.groups import Absence
from prunekit.errors import PlanError, TraceError, VerificationError
from prunekit.plans.contents import Edit, Plan
from prunekit.removal.branch_plans import BranchRemover
from prunekit.removal.certificate import Certificate, Rerun
from prunekit.removal.largest_set import Kept
from prunekit.removal.removal_plans import Remover

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class JointRemover:
    """Makes certified plans for one model in which some blocks go, and branches of those that stay."""

    blocks: Remover
    branches: BranchRemover

    @classmethod
    def of(cls, trial: Rerun) -> JointRemover:
        """Raises what forward raises."""
        return cls(Remover.of(trial), BranchRemover.of(trial))

    def planned(self, kept: Kept) -> tuple[Plan, Certificate]:
        """The plan that keeps these units of each named group, certified against the model with blocks passed by and
        branches silenced at once.

        No branch of ``kept`` that goes lies in a block that does. Raises VerificationError or TraceError where no way
        to number what is left gives that model.
        """
        depth = self.blocks.trial.structure.depth
        of_blocks = {name: units for name, units in kept.items() if not depth.group(name).branches}
        of_branches = {name: units for name, units in kept.items() if name not in of_blocks}
        if not (of_blocks and of_branches):
            return self.blocks.planned(of_blocks) if of_blocks else self.branches.planned(of_branches)
        gone = self.branches.gone(of_branches)
        first: Exception | None = None
        for level, counters in self.blocks.ways(of_blocks):
            shallow = self.blocks.made(of_blocks, level, counters)
            blocks = [path for removal in shallow.removals for path in removal.gone]
            absences = tuple(each for branch in gone for each in branch.modules if not is_inside(each.module, blocks))
            for plan in dict.fromkeys(self._plans(shallow, blocks, absences, of_branches)):
                try:
                    return plan, self.blocks.trial.certify(plan, gone)
                except (VerificationError, TraceError, PlanError) as error:
                    logger.debug("a way to remove blocks and branches does not hold: %s", error)
                    first = first or error
        assert first is not None
        raise first

    def _plans(
        self, shallow: Plan, blocks: Sequence[str], absences: tuple[Absence, ...], of_branches: Kept
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
