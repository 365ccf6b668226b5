"""Whether a model is what its plan leaves, so that the plan can make another one that its weights fit."""

from __future__ import annotations

from torch import nn

from prunekit.errors import CheckpointError
from prunekit.modules.walk import state_tensors
from prunekit.plans.contents import Plan
from prunekit.plans.renaming import Renaming


def check_as_cut(model: nn.Module, plan: Plan) -> None:
    """Raises CheckpointError where a tensor that ``plan`` cuts has another size in ``model``, or is not there."""
    state, names = state_tensors(model), Renaming(plan.removals, plan.absences)
    for cut in plan.cuts:
        name = names.now(cut.tensor)
        if name is None:
            continue
        tensor = state.get(name)
        length = tensor.shape[cut.axis] if tensor is not None and cut.axis < tensor.ndim else None
        if length != len(cut.kept):
            raise CheckpointError(
                f"the model is not what its plan leaves, {len(cut.kept)} along axis {cut.axis} of {name}: "
                + ("there is no such tensor" if length is None else f"there are {length}"),
                where=name,
                hint="save before undo(), and before the pruned layers themselves are exchanged",
            )
