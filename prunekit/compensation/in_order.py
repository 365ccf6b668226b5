"""Refits in the order of execution: each layer is fitted to what the cut and refitted ones before it really give.

After a cut, a layer reads x' (features that are left, and what earlier layers made of them) instead of x. Its weight W'
is refitted in closed form so that W' x' comes close to the original's output y on calibration inputs:

    W' = W + D,   D = argmin |y - (W + D) x'|^2 + lambda |D|^2

that is ridge regression of what is missing, from the cut weight rather than from zero (compare OBC, Frantar and
Alistarh 2022, and CORP, 2025), in one forward pass of the cut model with all samples in one batch. An intercept goes
into the bias or, where the layer has none and a batch norm follows, into its running mean.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from prunekit.compensation.ridge import factor, mixtures
from prunekit.compensation.settings import STRENGTHS, Compensation
from prunekit.errors import InputError, PlanError
from prunekit.inputs import Inputs, normalise, sample_named
from prunekit.modules.moments import drawn_rows, on_device, row_count
from prunekit.modules.observing import Product, as_matrix, observed, outputs_of, rows_of
from prunekit.modules.rollback import standing
from prunekit.modules.soundness import all_finite
from prunekit.modules.write_guard import unwritten
from prunekit.plans.contents import Plan

_ROUNDING = 1e-10
ROWS = 4096  # places of a layer's output that are fitted where nothing is said


@dataclass(frozen=True, eq=False)
class Wanted:
    """What one product gave in the original: ``output`` (rows, outputs that stay), float32, at ``places``."""

    output: Tensor
    places: Tensor
    mean_of: str | None  # the running mean that takes the intercept where there is no bias


@dataclass(frozen=True, eq=False)
class Reference:
    """The original's outputs of every product that can be refitted, by parameter and call, on one batch."""

    how: Compensation
    batch: Inputs
    wanted: Mapping[tuple[str, int], Wanted]
    biases: Mapping[str, str]
    names: Collection[str] = field(default_factory=tuple)


def reference(model: nn.Module, plan: Plan, data: Iterable[Any], how: Compensation) -> Reference:
    """Runs ``model``, which is not cut yet, once on a batch of ``data``; the model is left as it was.

    Raises InputError where ``data`` holds nothing or its items cannot be joined to one batch, PlanError where a layer
    gives what is not finite.
    """
    batch = on_device(batched(data, how.samples), model)
    kept = {(cut.tensor, cut.axis): torch.tensor(cut.kept, dtype=torch.long, device="cpu") for cut in plan.cuts}
    weights = dict(model.named_parameters())
    means = {buffer.data_ptr(): name for name, buffer in model.named_buffers()}
    calls: dict[str, int] = {}
    starts: set[tuple[str, int]] = set()
    repeated: set[str] = set()
    found: dict[tuple[str, int], Wanted] = {}
    last: list[Any] = []

    def see(product: Product, output: Tensor) -> None:
        last.clear()
        weight = weights[product.name]
        number = calls.get(product.name, 0)
        calls[product.name] = number + 1
        if (product.name, product.start) in starts:
            repeated.add(product.name)
        starts.add((product.name, product.start))
        if weight.ndim == 3 and product.settings is None:
            return
        if not output.is_floating_point():
            return
        rows = row_count(product, output)
        taken = drawn_rows(rows, how.rows or ROWS, how.seed + 7919 * number)
        columns = kept.get((product.name, product.output_axis))
        flat = outputs_of(product, output, taken.to(output.device)).movedim(0, 1).flatten(1)
        if columns is not None:
            here = columns[(columns >= product.start) & (columns < product.start + product.outputs)] - product.start
            flat = flat.index_select(1, here.to(flat.device))
        if not all_finite(flat):
            raise PlanError(f"what {product.name} gives is not finite", where=product.name, hint="check the data")
        found[product.name, number] = Wanted(flat.float(), taken, None)
        last[:] = [(product.name, number), output]

    def norm(given: Tensor, mean: Tensor) -> None:
        if last and given is last[1] and mean.data_ptr() in means:
            key = last[0]
            found[key] = Wanted(found[key].output, found[key].places, means[mean.data_ptr()])

    with _evaluating(model), unwritten(model), sample_named(0, "batch"), observed(model, after=see, norm=norm):
        model(*batch.args, **batch.kwargs)
    wanted = {key: value for key, value in found.items() if key[0] not in repeated}
    biases = {
        name: bias for name, _ in wanted if (bias := f"{name.removesuffix('weight')}bias") in weights and bias != name
    }
    read = {mean for value in wanted.values() if (mean := value.mean_of) is not None}
    return Reference(how, batch, wanted, biases, {*(n for n, _ in wanted), *biases.values(), *read})


def refit(model: nn.Module, original: Reference) -> int:
    """Refits the cut ``model`` in place and returns how many products were; parameters are written into.

    Raises PlanError where a result is not finite.
    """
    weights = dict(model.named_parameters())
    buffers = dict(model.named_buffers())
    calls: dict[str, int] = {}
    done: list[str] = []

    def before(product: Product) -> None:
        number = calls.get(product.name, 0)
        calls[product.name] = number + 1
        wanted = original.wanted.get((product.name, number))
        if wanted is None:
            return
        weight = weights[product.name]
        bias = weights.get(original.biases.get(product.name, ""))
        mean = buffers.get(wanted.mean_of or "") if bias is None else None
        if _solved(product, weight, bias, mean, wanted, original.how):
            done.append(product.name)

    with _evaluating(model), unwritten(model, original.names), observed(model, before=before):
        model(*original.batch.args, **original.batch.kwargs)
    return len(done)


def _solved(
    product: Product, weight: Tensor, bias: Tensor | None, mean: Tensor | None, wanted: Wanted, how: Compensation
) -> bool:
    x = rows_of(product, weight, wanted.places.to(weight.device)).double()  # (G, R, K)
    matrix = as_matrix(product, weight)  # (G, O, K)
    y = wanted.output.to(x)
    if y.shape[0] != x.shape[1] or y.shape[1] != matrix.shape[0] * matrix.shape[1]:
        return False
    y = y.reshape(len(y), len(matrix), -1).movedim(1, 0)  # (G, R, O)
    missing = y - x @ matrix.double().transpose(1, 2)
    if bias is not None:
        own = bias.narrow(0, product.start, product.outputs).double()
        missing -= own.reshape(len(matrix), 1, -1)
    if float(missing.square().sum()) <= _ROUNDING * float(y.square().sum()):
        return False  # nothing before it was cut: what differs is rounding
    problem = _Ridge.of(x, missing, centred=bias is not None or mean is not None)
    strength = problem.best() if how.strength is None else how.strength
    change, intercept = problem.solved(strength)
    if not bool(torch.isfinite(change).all()):
        raise PlanError(
            f"the refit of {product.name} is not finite", where=product.name, hint="check the data, or raise strength"
        )
    intercept = intercept.flatten()
    _gathered(product, weight, change)
    if bias is not None:
        bias.narrow(0, product.start, product.outputs).add_(intercept.to(bias.dtype))
    elif mean is not None:
        mean.sub_(intercept.to(mean.dtype))
    return True


@dataclass(frozen=True, eq=False)
class _Moments:
    """Second moments of rows x (G, R, K) and y (G, R, O), taken from their means where ``centred``."""

    xx: Tensor  # (G, K, K)
    xy: Tensor  # (G, K, O)
    yy: float

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> _Moments:
        return cls(x.transpose(1, 2) @ x, x.transpose(1, 2) @ y, float(y.square().sum()))

    def solved(self, strength: float) -> Tensor:
        """(G, K, O): the ridge solution."""
        if strength == math.inf:
            return torch.zeros_like(self.xy)
        parts = [torch.cholesky_solve(xy, factor(xx, strength)) for xx, xy in zip(self.xx, self.xy, strict=True)]
        return torch.stack(parts)

    def mixed(self) -> _Moments:
        """The same of few random mixtures of y, on which strengths are tried; ``yy``, the same for all, is left."""
        return _Moments(self.xx, torch.stack([mixtures(xy.t()).t() for xy in self.xy]), self.yy)

    def error(self, change: Tensor) -> float:
        """|y - x change|^2, summed."""
        return self.yy + float((change * (self.xx @ change - 2 * self.xy)).sum())


@dataclass(frozen=True, eq=False)
class _Ridge:
    """One layer's regression: moments of all rows, of those that a strength is tried on, and of those held out."""

    all: _Moments
    tried: _Moments
    held: _Moments | None
    x_mean: Tensor
    y_mean: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor, *, centred: bool) -> _Ridge:
        """Of y (G, R, O) on x (G, R, K); the last quarter of the rows is held out."""
        held = x.shape[1] // 4
        x_mean = x.mean(1, keepdim=True) if centred else torch.zeros_like(x[:, :1])
        y_mean = y.mean(1, keepdim=True) if centred else torch.zeros_like(y[:, :1])
        x, y = x - x_mean, y - y_mean
        if not held:
            moments = _Moments.of(x, y)
            return cls(moments, moments, None, x_mean, y_mean)
        tried, rest = _Moments.of(x[:, :-held], y[:, :-held]), _Moments.of(x[:, -held:], y[:, -held:])
        whole = _Moments(tried.xx + rest.xx, tried.xy + rest.xy, tried.yy + rest.yy)
        return cls(whole, tried, rest, x_mean, y_mean)

    def best(self) -> float:
        """The strength that does best on the rows that it was not fitted on; infinite where none helps there."""
        if self.held is None:
            return math.inf
        tried, held = self.tried.mixed(), self.held.mixed()
        errors = {strength: held.error(tried.solved(strength)) for strength in STRENGTHS}
        return min(errors, key=lambda s: (errors[s], s))

    def solved(self, strength: float) -> tuple[Tensor, Tensor]:
        """Coefficients (G, O, K) and intercepts (G, 1, O)."""
        change = self.all.solved(strength)
        return change.transpose(1, 2), self.y_mean - self.x_mean @ change


def _gathered(product: Product, weight: Tensor, change: Tensor) -> None:
    if product.settings is not None:
        weight.add_(change.reshape(weight.shape).to(weight.dtype))
        return
    part = weight.narrow(product.output_axis, product.start, product.outputs)
    part.add_((change[0] if product.feature_axis == 1 else change[0].t()).to(weight.dtype))


def batched(data: Iterable[Any], limit: int) -> Inputs:
    """The first ``limit`` samples of ``data`` as one batch. Raises InputError where they cannot be joined."""
    items = [normalise(item) for item in islice(data, limit)]
    if not items:
        raise InputError("there is nothing to compensate with", where="data", hint="pass calibration inputs")
    flat = [tree_flatten((i.args, i.kwargs)) for i in items]
    try:
        leaves = [_one_batch(values) for values in zip(*(leaves for leaves, _ in flat), strict=True)]
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the calibration inputs cannot be joined to one batch: {error}", where="data", hint="pad them to one shape"
        ) from error
    args, kwargs = tree_unflatten(leaves, flat[0][1])
    return Inputs(args, kwargs)


def _one_batch(values: Sequence[Any]) -> Any:
    tensors = [v for v in values if isinstance(v, Tensor) and v.ndim]
    return torch.cat(tensors) if len(tensors) == len(values) else values[0]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Inside: eval mode, no gradients. Afterwards attributes, training modes and the global RNG are what they were."""
    put_back = standing(model)
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            for module in model.modules():
                module.training = False
            yield
    finally:
        put_back()
