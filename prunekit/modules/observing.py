"""Which data meet which weights: every product of a parameter with data, seen while a model runs.

A linear layer, a convolution or a batched product is put into one form: ``G`` independent products of data (G, R, K)
with a weight (G, O, K), R rows of K features. It is found where torch executes it, so any module that multiplies a
parameter with data is seen, whatever its class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, unfold

from prunekit.modules.dispatching import DispatchMode
from prunekit.modules.fast_path import without_fast_path
from prunekit.offloading import relieve
from prunekit.operators import TABLE


@dataclass(frozen=True, eq=False)
class Product:
    """One execution of a product of a parameter with data.

    Attributes:
        name: of the parameter.
        feature_axis: the axis of the parameter that runs over the features that are summed away.
        output_axis: the axis that runs over the outputs.
        start: the first output of the parameter that takes part (fused projections are read in parts).
        outputs: how many do.
        data: what was read, as the operator got it.
        groups: of a convolution; 1 elsewhere.
        settings: (stride, padding, dilation) of a convolution, None elsewhere.
    """

    name: str
    feature_axis: int
    output_axis: int
    start: int
    outputs: int
    data: Tensor
    groups: int = 1
    settings: tuple[list[int], list[int], list[int]] | None = None

    def moments(self, of: Callable[[Tensor], Tensor]) -> tuple[Tensor, int]:
        """(features,) or (groups, features): the sum of ``of(data)`` for every feature, float64, and the row count."""
        return _sums(of(self.data), self)


def _sums(values: Tensor, product: Product) -> tuple[Tensor, int]:
    if product.settings is not None:  # (N, C, *places)
        rows = values.movedim(1, -1).reshape(-1, values.shape[1])
        return rows.sum(0, dtype=torch.float64), rows.shape[0]
    if values.ndim == 3:  # (E, rows, K): every expert has its own
        return values.sum(1, dtype=torch.float64), values.shape[1]
    return values.sum(0, dtype=torch.float64), values.shape[0]


def rows_of(product: Product, weight: Tensor, places: Tensor | None = None) -> Tensor:
    """(G, R, K): the features of every row, or of the rows ``places`` only. K is in the order of ``as_matrix``."""
    data = product.data
    if product.settings is None:
        found = data if data.ndim == 3 else data.unsqueeze(0)
        return found if places is None else found[:, places]
    stride, padding, dilation = product.settings
    kernel = list(weight.shape[2:])
    if all(k == 1 for k in kernel) and all(p == 0 for p in padding):
        places_taken: tuple[Any, ...] = (..., *(slice(None, None, s) for s in stride))
        strided = data[places_taken]
        flat = strided.flatten(2).movedim(1, 2).reshape(-1, data.shape[1])
        flat = flat if places is None else flat[places]
    else:
        flat = _unfolded(data, kernel, stride, padding, dilation, places)
    return flat.reshape(flat.shape[0], product.groups, -1).movedim(1, 0)


def _unfolded(
    data: Tensor, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int], places: Tensor | None
) -> Tensor:
    """(R, C * kernel) of a convolution over one or two axes: all places, image by image, or the given ones alone."""
    if len(kernel) == 1:
        data, kernel = data.unsqueeze(2), [1, *kernel]
        stride, padding, dilation = [1, *stride], [0, *padding], [1, *dilation]
    if places is None:
        images = (unfold(x[None], tuple(kernel), tuple(dilation), tuple(padding), tuple(stride))[0].t() for x in data)
        return torch.cat(list(images))
    padded = pad(data, (padding[1], padding[1], padding[0], padding[0]))
    rows, columns = ((padded.shape[2 + k] - dilation[k] * (kernel[k] - 1) - 1) // stride[k] + 1 for k in (0, 1))
    image, place = places // (rows * columns), places % (rows * columns)
    steps = [torch.arange(kernel[k], device=places.device) * dilation[k] for k in (0, 1)]
    y = (place // columns * stride[0]).unsqueeze(1) + steps[0]  # (R, kernel)
    x = (place % columns * stride[1]).unsqueeze(1) + steps[1]
    picked = padded[image[:, None, None], :, y[:, :, None], x[:, None, :]]  # (R, kernel, kernel, C)
    return picked.movedim(-1, 1).flatten(1)


def as_matrix(product: Product, weight: Tensor) -> Tensor:
    """(G, O, K): the part of the parameter that takes part, a view where that is possible."""
    if product.settings is not None:
        return weight.reshape(product.groups, weight.shape[0] // product.groups, -1)
    if weight.ndim == 3:
        return weight.transpose(1, 2) if product.feature_axis == 1 else weight
    part = weight.narrow(product.output_axis, product.start, product.outputs)
    return (part if product.feature_axis == 1 else part.t()).unsqueeze(0)


def outputs_of(product: Product, output: Tensor, places: Tensor | None = None) -> Tensor:
    """(G, R, O): the results of every row, or of the rows ``places`` only."""
    if product.settings is None:
        found = output if output.ndim == 3 else output.unsqueeze(0)
        return found if places is None else found[:, places]
    flat = output.flatten(2).movedim(1, 2).reshape(-1, output.shape[1])
    flat = flat if places is None else flat[places]
    return flat.reshape(flat.shape[0], product.groups, -1).movedim(1, 0)


Seen = Callable[[Product], None]
SeenOutput = Callable[[Product, Tensor], None]
SeenNorm = Callable[[Tensor, Tensor], None]


def _is_norm(func: Any) -> bool:
    found = TABLE.get(str(func.overloadpacket))
    return found is not None and found.normalises


@contextmanager
def observed(
    model: nn.Module, *, before: Seen | None = None, after: SeenOutput | None = None, norm: SeenNorm | None = None
) -> Iterator[None]:
    """Within the block every product of a parameter of ``model`` is reported, before it runs and after.

    ``norm`` gets the input and the running mean of every batch norm before it runs. What ``before`` writes into the
    parameter is used by the very product that it was called for.
    """
    with without_fast_path(), _Watch(model, before, after, norm):
        yield


class _Watch(DispatchMode):
    def __init__(self, model: nn.Module, before: Seen | None, after: SeenOutput | None, norm: SeenNorm | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._before, self._after, self._norm = before, after, norm
        self._owners = {p.untyped_storage().data_ptr(): (name, p) for name, p in model.named_parameters() if p.ndim > 1}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        product = self._product(str(func.overloadpacket), args)
        if product is not None and self._before is not None:
            self._before(product)
        if self._norm is not None and _is_norm(func) and isinstance(args[3], Tensor):
            self._norm(args[0], args[3])
        output = func(*args, **(kwargs or {}))
        if product is not None and self._after is not None:
            self._after(product, output)
        if product is not None:
            relieve()
        return output

    def _product(self, name: str, args: Any) -> Product | None:
        if name == "aten.convolution":
            return self._convolution(args)
        if name in ("aten.mm", "aten.bmm"):
            return self._matrix(args[0], args[1])
        if name in ("aten.addmm", "aten.baddbmm"):
            return self._matrix(args[1], args[2])
        return None

    def _owner(self, tensor: Tensor) -> tuple[str, nn.Parameter] | None:
        found = self._owners.get(tensor.untyped_storage().data_ptr())
        return found if found is not None and found[1].is_contiguous() else None

    def _convolution(self, args: Any) -> Product | None:
        data, weight, stride, padding, dilation, transposed, groups = (args[i] for i in (0, 1, 3, 4, 5, 6, 8))
        found = self._owners.get(weight.untyped_storage().data_ptr())
        if found is None or transposed or weight.shape != found[1].shape or weight.ndim not in (3, 4):
            return None
        settings = (list(stride), list(padding), list(dilation))
        return Product(found[0], 1, 0, 0, weight.shape[0], data, int(groups), settings)

    def _matrix(self, data: Tensor, weight: Tensor) -> Product | None:
        found = self._owner(weight)
        if found is None:
            return None
        name, parameter = found
        features, outputs = weight.shape[-2:]
        if weight.ndim == 3 and parameter.ndim == 3 and len(weight) == len(parameter):
            if weight.stride() == parameter.stride() and weight.shape == parameter.shape:
                return Product(name, 1, 2, 0, outputs, data)
            if weight.shape == parameter.transpose(1, 2).shape and weight.stride()[1:] == parameter.stride()[:0:-1]:
                return Product(name, 2, 1, 0, outputs, data)
            return None
        if weight.ndim != 2 or parameter.ndim != 2:
            return None
        row = parameter.shape[1]
        if features == row and _strides(weight, (1, row)):
            return Product(name, 1, 0, int(weight.storage_offset()) // row, outputs, data)
        if features == parameter.shape[0] and _strides(weight, (row, 1)):
            return Product(name, 0, 1, int(weight.storage_offset()) % row, outputs, data)
        return None


def _strides(tensor: Tensor, wanted: tuple[int, int]) -> bool:
    """Whether the strides are the wanted ones, where an axis of length 1 may have any."""
    return all(size == 1 or s == w for size, s, w in zip(tensor.shape, tensor.stride(), wanted, strict=True))
