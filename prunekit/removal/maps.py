"""Affine maps in the place of blocks and branches: where one can stand, and plans that put one there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from prunekit.coupling.blocks import is_inside
from prunekit.coupling.groups import Absence, Branch, Frozen, Group
from prunekit.coupling.structure import Structure
from prunekit.errors import VerificationError
from prunekit.graph.nodes import ModuleCall, Ref
from prunekit.modules.absent import AFFINE, GIVEN, NONE, STREAM
from prunekit.plans.contents import Plan
from prunekit.removal.branch_plans import BranchRemover
from prunekit.removal.certificate import Certificate
from prunekit.removal.largest_set import Kept, units_gone
from prunekit.roles import ATTENTION_BRANCH


@dataclass(frozen=True, eq=False)
class MapRemover(BranchRemover):
    """Makes certified plans that leave an affine map of its stream in the place of every block or branch that goes."""

    def planned(self, kept: Kept) -> tuple[Plan, Certificate]:
        """As for branches; certified with the maps at zero, where the model is the one without what goes.

        Raises VerificationError where no map can stand, too.
        """
        structure = self.trial.structure
        gone = [
            (structure.depth.group(name), u)
            for name, units in kept.items()
            for u in units_gone(structure.depth.group(name), units)
        ]
        modules = stand_ins(gone, structure)
        branches = [group.branches[unit] for group, unit in gone if group.branches]
        blocks = [group.places[unit] for group, unit in gone if not group.branches]
        return self.certified(kept, modules, branches, blocks)


def stand_ins(gone: Sequence[tuple[Group, int]], structure: Structure) -> list[Absence]:
    """What stands where these units were, in the order of the model, in which maps are fitted.

    Raises VerificationError where no map can stand.
    """
    order = {call.module: at for at, call in enumerate(structure.trace.modules)}
    found = [_mapped(*each, structure) for each in sorted(gone, key=lambda each: order.get(each[0].places[each[1]], 0))]
    for part in found:
        if isinstance(part, Frozen):
            raise VerificationError(part.reason, where=part.name)
    return [each for part in found if not isinstance(part, Frozen) for each in part]


def _mapped(group: Group, unit: int, structure: Structure) -> tuple[Absence, ...] | Frozen:
    """The module that becomes a map, the block itself or the last one of a branch, and those that hand on to it."""
    if group.branches:
        return _of_branch(group.branches[unit], structure)
    path = group.places[unit]
    if group.routes:
        return Frozen(path, 1, "it is an expert, which no map stands for: tokens are sent to the others")
    (call,) = _calls(structure, path)
    axis = _stream_axis(call, structure)
    rest = [ref for ref in call.outputs[1:] if _is_read(ref, path, structure)]
    if axis is None or rest or not call.form or (len(call.form) > 1 and call.form[1] != "tensor"):
        return Frozen(path, 1, "no affine map of its first input could stand for all that it returns")
    others = [NONE] * max(0, len(call.form) - 2)
    return (Absence(path, call.form[0], (f"{STREAM}:{axis}={call.outputs[0].shape[axis]}", *others)),)


def _of_branch(branch: Branch, structure: Structure) -> tuple[Absence, ...] | Frozen:
    """A norm before the first matrix stays, and the map reads what it gives; what follows hands on what it is given."""
    heavy = [number for number, each in enumerate(branch.modules) if _has_matrix(each, structure)]
    last = branch.modules[-1]
    (call,) = _calls(structure, last.module)
    axis = next((axis for axis in _labelled(call.outputs[0], structure) if axis > 0), None)
    if not heavy or axis is None or last.leaves[0] == NONE or not _attends_inside(branch, structure):
        return Frozen(branch.place, 1, "its parts are not in modules from its stream to what it adds: no map can stand")
    handing = [replace(each, leaves=_handed_on(each.leaves)) for each in branch.modules[heavy[0] : -1]]
    leaf = f"{AFFINE}:{axis}={call.outputs[0].shape[axis]}"
    return (*handing, replace(last, leaves=(leaf, *last.leaves[1:])))


def _handed_on(leaves: tuple[str, ...]) -> tuple[str, ...]:
    return (GIVEN if leaves[0] != NONE else NONE, *leaves[1:])


def _has_matrix(absence: Absence, structure: Structure) -> bool:
    names = structure.trace.state.items()
    return any(len(ref.shape) > 1 for name, ref in names if is_inside(name, [absence.module]))


def _attends_inside(branch: Branch, structure: Structure) -> bool:
    """Whether what an attention multiplies lies in the modules that go; forward's own would go on, on other values."""
    if branch.role != ATTENTION_BRANCH:
        return True
    inside = [op for op in structure.trace.ops if is_inside(op.module, [each.module for each in branch.modules])]
    costs = [product(op) for op in inside if (product := structure.coupler.table.of(op).product) is not None]
    weights = structure.coupler.weights
    return any(cost is None or not any(ref.id in weights for ref in cost.factors) for cost in costs)


def _calls(structure: Structure, path: str) -> Sequence[ModuleCall]:
    return [call for call in structure.trace.modules if call.module == path]


def _stream_axis(call: ModuleCall, structure: Structure) -> int | None:
    """The one axis of the stream that weights know, where what is given first has its shape."""
    if not call.outputs or not call.given or call.given[0].shape != call.outputs[0].shape:
        return None
    known = _labelled(call.outputs[0], structure)
    return known[0] if len(known) == 1 and known[0] > 0 else None


def _labelled(ref: Ref, structure: Structure) -> list[int]:
    """Axes that weights run along."""
    return [axis for axis, labels in enumerate(structure.coupler.of(ref)) if labels is not None]


def _is_read(ref: Ref, path: str, structure: Structure) -> bool:
    """Whether anything outside a module reads what it returned."""
    outside = (op for op in structure.trace.ops if not is_inside(op.module, [path]))
    return any(ref in op.inputs for op in outside) or ref in structure.trace.outputs
