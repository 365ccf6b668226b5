"""Moments of what products with parameters read and write, over calibration samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from prunekit.inputs import Sample, sample_named
from prunekit.inputs.per_rank import ALONE, Alone
from prunekit.modules.observing import Product, observed
from prunekit.scorers.calibrate import finite, to_model
from prunekit.scorers.undisturbed import restore_caches, tensor_caches, untouched

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Moments:
    """Of the features that one parameter meets: float64, in shapes that broadcast to the parameter.

    ``axis`` is the axis of the parameter that runs over the features; -1 where two axes do (grouped convolutions).
    ``positive`` is the share of values above zero, of complex ones of those that are not zero.
    """

    axis: int
    mean_abs: Tensor
    mean_square: Tensor
    positive: Tensor


@dataclass(frozen=True, eq=False)
class Activations:
    """By parameter: moments of what it reads and of what it writes."""

    inputs: Mapping[str, Moments]
    outputs: Mapping[str, Moments]


MEASURES: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda x: x.abs().double(),
    lambda x: x.abs().double().square(),
    lambda x: ((x.abs() if x.is_complex() else x) > 0).double(),
)


@dataclass
class _Sums:
    axis: int
    sums: list[Tensor]
    rows: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64, device="cpu"))


def activations(
    model: nn.Module, samples: Sequence[Sample], progress: Progress | None = None, ranks: Alone = ALONE
) -> Activations:
    """Moments over all rows of all samples of all ``ranks``: one forward pass each. The model is left as it was.

    Raises ScorerError where an activation is not finite; the message names the parameter.
    """
    weights = dict(model.named_parameters())
    inputs: dict[str, _Sums] = {}
    outputs: dict[str, _Sums] = {}

    def see(product: Product, output: Tensor) -> None:
        weight = weights[product.name]
        with _disable_current_modes():  # what looks at every operator of the model has no business with these sums
            _sum_in(inputs, product.name, _feature_axis(product, weight), _inputs(product, weight))
            _sum_in(outputs, product.name, product.output_axis, _outputs(product, output, weight))

    with untouched(model, ()), torch.no_grad():
        caches = tensor_caches(model)
        for number, sample in enumerate(samples):
            moved = to_model(sample, model).inputs
            with sample_named(number), observed(model, after=see):
                model(*moved.args, **moved.kwargs)
            restore_caches(caches)
            if progress is not None:
                progress(number + 1, len(samples))
    sides = [side if ranks.size == 1 else _over_ranks(side, ranks) for side in (inputs, outputs)]
    return Activations(*({n: _finished(n, s) for n, s in side.items()} for side in sides))


def _over_ranks(side: dict[str, _Sums], ranks: Alone) -> dict[str, _Sums]:
    """The sums of all ranks; a sample may pass parameters by that those of another rank meet."""
    mine = {n: (s.axis, [tuple(x.shape) for x in (*s.sums, s.rows)]) for n, s in side.items()}
    met = {name: about for told in ranks.all("features", mine) for name, about in told.items()}
    found = {}
    for name, (axis, shapes) in met.items():
        own = side.get(name)
        values = (
            [torch.zeros(shape, dtype=torch.float64, device="cpu") for shape in shapes]
            if own is None
            else [*own.sums, own.rows]
        )
        *sums, rows = ranks.total(values)
        found[name] = _Sums(axis, sums, rows)
    return found


def _sum_in(side: dict[str, _Sums], name: str, axis: int, found: tuple[list[Tensor], Tensor]) -> None:
    sums, rows = found
    if name not in side:
        side[name] = _Sums(axis, sums, rows)
        return
    side[name].sums = [a + b for a, b in zip(side[name].sums, sums, strict=True)]
    side[name].rows = side[name].rows + rows


def _finished(name: str, sums: _Sums) -> Moments:
    found = [s / sums.rows.clamp(min=1) for s in sums.sums]
    for value in found:
        finite(value, f"an activation of {name} is not finite", name)
    return Moments(sums.axis, *found)


def _feature_axis(product: Product, weight: Tensor) -> int:
    if product.settings is None or product.groups == 1:
        return product.feature_axis
    return 0 if weight.shape[1] == 1 and product.groups == weight.shape[0] else -1


def _inputs(product: Product, weight: Tensor) -> tuple[list[Tensor], Tensor]:
    found, rows = [], 0
    for measure in MEASURES:
        sums, rows = product.moments(measure)
        if product.settings is not None:
            # (C,) -> (O, C/G, 1, ...): a group's outputs read the group's channels
            own = sums.view(product.groups, -1).repeat_interleave(weight.shape[0] // product.groups, 0)
            sums = own.reshape(*own.shape, *(1 for _ in weight.shape[2:]))
        elif weight.ndim == 3:
            sums = sums.unsqueeze(2 if product.feature_axis == 1 else 1)
        else:
            sums = sums.unsqueeze(0 if product.feature_axis == 1 else 1)
        found.append(sums.cpu())
    return found, torch.tensor(float(rows), dtype=torch.float64, device="cpu")


def _outputs(product: Product, output: Tensor, weight: Tensor) -> tuple[list[Tensor], Tensor]:
    found: list[Tensor] = []
    axis = product.output_axis
    rows = torch.zeros(weight.shape[axis], dtype=torch.float64, device="cpu")
    for measure in MEASURES:
        values = measure(output)
        if product.settings is not None:
            flat = values.movedim(1, -1).reshape(-1, values.shape[1])
        elif values.ndim == 3:
            flat = values.reshape(-1, values.shape[2])
        else:
            flat = values
        whole = torch.zeros(weight.shape[axis], dtype=torch.float64, device="cpu")
        whole[product.start : product.start + product.outputs] = flat.sum(0).cpu()
        rows[product.start : product.start + product.outputs] = flat.shape[0]
        found.append(whole)
    shape = [1] * weight.ndim
    shape[axis] = -1
    return [f.view(shape) for f in found], rows.view(shape)
