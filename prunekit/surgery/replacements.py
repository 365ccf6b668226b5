"""The tensors that stand after a cut in the place of those before it, and take after them in all but size."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from prunekit.errors import PlanError
from prunekit.offloading import in_file
from prunekit.plans.contents import Cut, Plan

_Indices = dict[int, Tensor]  # of what many tensors keep alike


def replacements_for(
    state: Mapping[str, Tensor], plan: Plan, renewed: Collection[str], added: Mapping[str, Tensor]
) -> dict[int, Tensor]:
    """What is put in the place of each tensor that ``plan`` cuts or scales, or a compensation writes, by its id.

    A replacement keeps what its tensor says of itself: type, dtype, device, the order in which its axes lie in memory,
    requires_grad, attributes and hooks. Its gradient is cut as it is, and so is a tensor of its shape among the
    attributes. Raises PlanError where the plan does not fit ``state``.
    """
    by_tensor: dict[str, list[Cut]] = {}
    for cut in plan.cuts:
        by_tensor.setdefault(cut.tensor, []).append(cut)
    found: dict[int, Tensor] = {}
    indices: _Indices = {}
    for name in dict.fromkeys([*by_tensor, *(f.tensor for f in plan.folds), *renewed, *added]):
        tensor = state.get(name)
        if tensor is None:
            raise PlanError(f"the model has no tensor {name}", hint="plan again for this model")
        cuts = by_tensor.get(name, [])
        new = _narrowed(tensor.detach(), cuts, indices, name)
        for fold in (f for f in plan.folds if f.tensor == name):
            if fold.axis >= new.ndim or max(fold.rows, default=0) >= new.shape[fold.axis]:
                raise PlanError(f"{name} has no axis {fold.axis} with the rows that are multiplied", hint="plan again")
            rows = torch.tensor(fold.rows, dtype=torch.long, device=new.device)
            scaled = new.index_select(fold.axis, rows) * fold.factor
            new = new.index_copy(fold.axis, rows, scaled)
        if name in added:
            new = new + added[name]
        if new.data_ptr() == tensor.data_ptr():
            new = new.clone()  # what a compensation writes into must not be the original
        new = in_file(_laid_out_as(tensor, new))
        if isinstance(tensor, nn.Parameter):
            new = nn.Parameter(new, requires_grad=tensor.requires_grad)
        _take_after(tensor, new, cuts, indices)
        found[id(tensor)] = new
    return found


def _narrowed(tensor: Tensor, cuts: Sequence[Cut], indices: _Indices, name: str) -> Tensor:
    for cut in cuts:
        length = tensor.shape[cut.axis] if cut.axis < tensor.ndim else None
        if length != cut.size:
            raise PlanError(f"axis {cut.axis} of {name} has length {length}, not {cut.size}")
        if (index := indices.get(id(cut.kept))) is None or index.device != tensor.device:
            index = indices[id(cut.kept)] = torch.tensor(cut.kept, dtype=torch.long, device=tensor.device)
        tensor = tensor.index_select(cut.axis, index)
    return tensor


def _laid_out_as(old: Tensor, new: Tensor) -> Tensor:
    """``new`` without gaps, its axes in memory in the order of ``old``: channels last stays so."""
    if new.layout != torch.strided:
        return new
    if old.layout != torch.strided or old.is_contiguous():
        return new.contiguous()
    strides = old.stride()
    order = sorted(range(old.ndim), key=lambda axis: -strides[axis])
    return new.permute(order).contiguous().permute([order.index(axis) for axis in range(old.ndim)])


def _take_after(old: Tensor, new: Tensor, cuts: Sequence[Cut], indices: _Indices) -> None:
    def cut_alike(value: object) -> object:
        if not isinstance(value, Tensor) or value.shape != old.shape:
            return value
        return _laid_out_as(value, _narrowed(value.detach(), cuts, indices, "an attribute of a parameter"))

    if type(new) is nn.Parameter and type(old) is not nn.Parameter:
        new.__class__ = type(old)  # type: ignore[assignment]
    for name, value in vars(old).items():
        new.__dict__[name] = cut_alike(value)
    if not old.is_leaf:
        return
    if old.grad is not None:
        grad = cut_alike(old.grad)
        new.grad = grad if isinstance(grad, Tensor) and grad.shape == new.shape else None
    # The very dictionaries: a handle that the user holds takes a hook off both.
    for hooks in ("_backward_hooks", "_post_accumulate_grad_hooks"):
        if (held := getattr(old, hooks, None)) is not None:
            setattr(new, hooks, held)
