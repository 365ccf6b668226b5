"""Refits from what the original's layers read: sums of one sweep over the samples, then one equation a layer.

A layer whose input loses the features R and keeps S gave W_S x_S + W_R x_R. What is kept is refitted so that it gives
the second term too (compare OBC, Frantar and Alistarh 2022, and CORP, 2025):

    D = argmin |W_R x_R - D x_S - b|^2 + lambda |D|^2

Only x x^T and x, summed over rows, enter. They are summed a sample at a time in the original, before anything is cut,
so that neither outputs nor a second model are held, and samples may differ in shape. The intercept b goes into the bias
or, where the layer has none and a batch norm follows, into its running mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunekit.compensation.sums import Sums
from prunekit.modules.moments import bias_of
from prunekit.modules.observing import Product, as_matrix
from prunekit.offloading import in_file
from prunekit.plans.contents import Plan
from prunekit.scorers.read_places import Place, may_read
from prunekit.scorers.second_moments import Reads


@dataclass(frozen=True, eq=False)
class Remaining:
    """What a plan leaves of a parameter: indices by axis."""

    by_axis: Mapping[int, Tensor]

    def of(self, axis: int, size: int, device: torch.device) -> Tensor:
        """Indices that stay on ``axis``, of which there are ``size``."""
        found = self.by_axis.get(axis)
        return torch.arange(size, device=device) if found is None else found.to(device)


def corrections(model: nn.Module, plan: Plan, sums: Sums) -> dict[str, Tensor]:
    """What is added to parameters and running means of the cut model, by name, in their shapes after the cut.

    ``model`` is the one that ``sums`` are of: it is not cut yet, and is left as it was. Raises PlanError where a result
    is not finite.
    """
    kept = _kept(plan)
    found: dict[str, Tensor] = {}
    for reads in sums.of(model, cut_places(plan, model)):
        _solve_part(found, model, kept[reads.like.name], reads, sums)
    return found


def cut_places(plan: Plan, model: nn.Module) -> list[Place]:
    """Axes of parameters that ``plan`` cuts and that features may lie along, in the model's order."""
    kept = _kept(plan)
    return [
        (name, axis)
        for name, weight in model.named_parameters()
        if name in kept
        for axis in sorted(kept[name].by_axis)
        if may_read(weight, axis)
    ]


def _kept(plan: Plan) -> dict[str, Remaining]:
    """Of every tensor that the plan cuts and does not scale."""
    scaled = {fold.tensor for fold in plan.folds}
    found: dict[str, dict[int, Tensor]] = {}
    for cut in plan.cuts:
        if cut.tensor not in scaled:
            found.setdefault(cut.tensor, {})[cut.axis] = torch.tensor(cut.kept, dtype=torch.long, device="cpu")
    return {name: Remaining(by_axis) for name, by_axis in found.items()}


def _solve_part(found: dict[str, Tensor], model: nn.Module, left: Remaining, reads: Reads, sums: Sums) -> None:
    """Solves for one part of a parameter and adds what it gives to ``found``."""
    product = reads.like
    weights, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    weight = weights[product.name].detach()
    bias = bias_of(product, weights)
    bias_name = f"{product.name.removesuffix('weight')}bias"
    mean = buffers.get(reads.mean_of or "") if bias is None and reads.ends == reads.calls else None
    matrix = as_matrix(product, weight)  # (G, O, K)
    features = _features(product, left, weight)
    change = found.setdefault(product.name, in_file(weight.new_zeros(_shape(left, weight))))
    stays = left.of(product.output_axis, weight.shape[product.output_axis], weight.device)
    shift = torch.zeros(len(stays), dtype=torch.float64, device=weight.device)
    for part, (group, first) in enumerate(_parts(product, left, weight)):
        rows = matrix[group]
        here = ((stays >= first) & (stays < first + len(rows))).nonzero().flatten()
        centred = bias is not None or mean is not None
        fit = sums.fitted(reads, group, rows, stays[here] - first, features, centred=centred)
        _put(change, product, part, here, fit.change)
        shift[here] += fit.intercept
    if bias is not None:
        _shifted(found, bias_name, shift, bias)
    elif mean is not None and reads.mean_of is not None:
        _shifted(found, reads.mean_of, -shift, mean)


def _shifted(found: dict[str, Tensor], name: str, shift: Tensor, like: Tensor) -> None:
    shift = shift.to(like.dtype)
    found[name] = found[name] + shift if name in found else shift


def _shape(left: Remaining, weight: Tensor) -> list[int]:
    return [len(left.of(axis, size, weight.device)) for axis, size in enumerate(weight.shape)]


def _features(product: Product, left: Remaining, weight: Tensor) -> Tensor:
    """Which of the K features of a row stay."""
    stay = left.of(product.feature_axis, weight.shape[product.feature_axis], weight.device)
    if product.settings is None:
        return stay
    each = weight[0, 0].numel()
    return (stay.unsqueeze(1) * each + torch.arange(each, device=stay.device)).flatten()


def _parts(product: Product, left: Remaining, weight: Tensor) -> Iterator[tuple[int, int]]:
    """(independent product, its first output on the output axis) of every one that is left."""
    if product.settings is not None:
        each = weight.shape[0] // product.groups
        yield from ((group, group * each) for group in range(product.groups))
    elif weight.ndim == 3:
        yield from ((group, 0) for group in left.of(0, weight.shape[0], weight.device).tolist())
    else:
        yield 0, product.start


def _put(change: Tensor, product: Product, part: int, here: Tensor, found: Tensor) -> None:
    """Adds coefficients (O, K) of outputs ``here`` to ``change``, which has the shape of the cut parameter."""
    found = found.to(change.dtype)
    if product.settings is not None:
        change[here] += found.reshape(len(here), *change.shape[1:])
    elif change.ndim == 3:
        change[part] += found if product.feature_axis == 2 else found.t()
    elif product.feature_axis == 1:
        change[here] += found
    else:
        change[:, here] += found.t()
