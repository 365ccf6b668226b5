"""Penalties that draw whole units towards zero while a model trains.

Let u be a unit, w_u all its weights over the parameters of its group, and t in (0, 1] how far the stage has come:

    group_lasso       sum_u |w_u|_2                    (Wen et al. 2016, Eq. 2; over coupled groups Fang et al. 2023)
    batch_norm_scale  sum of |gamma| of batch norms    (Liu et al. 2017, Eq. 1)
    growing           t / 2 sum of |w_u|^2 over the units that the next cut takes   (Wang et al. 2021, Eq. 3, GReg-1)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from prunekit.coupling.groups import Group
from prunekit.coupling.structure import Structure
from prunekit.errors import InputError, RecipeError
from prunekit.plans.contents import Plan

Penalty = Callable[[float], Tensor]


def sparsity_penalty(kind: str, model: nn.Module, structure: Structure, plan: Plan | None = None) -> Penalty:
    """A penalty for a training loop of one's own: ``loss = task(model) + weight * penalty(progress)``.

    Args:
        kind: ``group_lasso``, ``batch_norm_scale`` or ``growing``.
        structure: of this model, from ``prunekit.trace``.
        plan: what the cut after training will take, from ``prunekit.plan`` of the same structure. The first two act on
            its groups, or on all groups without a plan; ``growing`` needs it.

    Returns:
        A function from how far training has come, in (0, 1], to a scalar with a graph to the weights of ``model``.

    Raises:
        InputError: if the plan names a group that the structure does not have.
        RecipeError: for an unknown kind, and where the model has nothing that the penalty applies to.
    """
    groups = {group.name: group for group in structure.groups}
    if plan is None:
        return penalty(kind, model, structure.groups, {})
    doomed = {}
    for width in plan.widths:
        if width.group not in groups or groups[width.group].size != width.before:
            raise InputError(
                f"the structure has no group {width.group} of {width.before} units",
                where="plan",
                hint="plan with structure=structure",
            )
        gone = torch.ones(width.before, dtype=torch.bool, device="cpu")
        gone[list(width.kept)] = False
        doomed[width.group] = torch.nonzero(gone).flatten()
    return penalty(kind, model, [groups[name] for name in doomed], doomed)


def penalty(name: str, model: nn.Module, groups: Sequence[Group], doomed: Mapping[str, Tensor]) -> Penalty:
    """A function from how far the stage has come to the penalty, a scalar with a graph to the weights of ``model``.

    Args:
        doomed: units that the next cut takes by group name; ``growing`` reads it.

    Raises RecipeError for an unknown name, and where the model has nothing that the penalty applies to.
    """
    weights = dict(model.named_parameters())
    if name == "group_lasso":
        return lambda _: torch.stack([_norms(group, weights).sum() for group in groups]).sum()
    if name == "batch_norm_scale":
        scales = [m.weight for m in model.modules() if isinstance(m, _NORMS) and m.weight is not None]
        if not scales:
            raise RecipeError("the model has no batch norm with a scale", hint="use the recipe group-lasso")
        return lambda _: torch.stack([scale.abs().sum() for scale in scales]).sum()
    if name == "growing":
        here = [group for group in groups if len(doomed.get(group.name, ()))]
        if not here:
            raise RecipeError("the next cut takes no unit", where=name, hint="raise the ratio")
        units = {group.name: doomed[group.name].to(_device_of(group, weights)) for group in here}
        return lambda t: t / 2 * torch.stack([_squares(g, weights)[units[g.name]].sum() for g in here]).sum()
    raise RecipeError(f"unknown penalty {name!r}", hint="group_lasso, batch_norm_scale or growing")


_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def _squares(group: Group, weights: Mapping[str, nn.Parameter]) -> Tensor:
    """(group.size,): the sum of squares of each unit's weights."""
    device = _device_of(group, weights)
    found = torch.zeros(group.size, device=device)
    for member in group.parameters:
        lines = weights[member.tensor].float().square().movedim(member.axis, 0).reshape(len(member.unit_of), -1).sum(1)
        owned = (member.unit_of >= 0).to(device)
        found = found.index_add(0, member.unit_of.to(device)[owned], lines[owned])
    return found


def _norms(group: Group, weights: Mapping[str, nn.Parameter]) -> Tensor:
    # the root has no gradient at zero: a unit that is gone stays where it is
    return _squares(group, weights).clamp(min=1e-12).sqrt()


def _device_of(group: Group, weights: Mapping[str, nn.Parameter]) -> torch.device:
    return weights[group.parameters[0].tensor].device
