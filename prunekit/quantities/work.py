"""What takes time in a traced pass: its operators and fused calls, each to be run alone at any shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunekit.coupling.blocks import is_inside
from prunekit.graph.nodes import Ref, Trace, packet
from prunekit.graph.tree import of_type
from prunekit.operators import TABLE

Shapes = Mapping[int, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Work:
    """What is timed as one: an ATen operator, or a call that a device runs as one though its trace shows several."""

    name: str
    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[Ref, ...]

    @property
    def operands(self) -> tuple[Ref, ...]:
        """The tensors among its arguments."""
        return tuple(of_type((self.args, self.kwargs), Ref))


_NAMES_SIZES = {"aten.native_layer_norm": 2}  # the argument whose shape is the one that another argument names
FUSED = {"scaled_dot_product_attention": torch.nn.functional.scaled_dot_product_attention}


def works(trace: Trace, gone: Sequence[str] = ()) -> Iterator[Work]:
    """Everything in a trace that takes time, in order, but for what lies in modules that are ``gone``."""
    seen: set[int] = set()
    for op in trace.ops:
        if gone and is_inside(op.module, gone):
            continue
        call = op.call
        if call is not None and call.name in FUSED:
            if id(call) not in seen:
                seen.add(id(call))
                yield Work(call.name, FUSED[call.name], call.args, call.kwargs, call.outputs)
        elif op.outputs and not (op.is_constant or op.func.is_view or not TABLE.of(op).takes_time):
            yield Work(packet(op), op.func, op.args, op.kwargs, op.outputs)


def elements_of(refs: Sequence[Ref], shapes: Shapes) -> int:
    """Of all these tensors together, at the given shapes by id."""
    return sum(math.prod(shapes.get(ref.id, ref.shape)) for ref in refs)


def key_of(work: Work, shapes: Shapes) -> str:
    """Names the operator, its shapes, dtypes and other arguments."""

    def plain(value: Any) -> str:
        if isinstance(value, Ref):
            shape = "x".join(map(str, shapes.get(value.id, value.shape)))
            return f"{str(value.dtype).removeprefix('torch.')}[{shape}]{_layout(value)}"
        if isinstance(value, (list, tuple)):
            return f"({', '.join(plain(v) for v in value)})"
        return repr(value)

    named = [f"{k}={plain(v)}" for k, v in sorted(work.kwargs.items())]
    what = work.name if work.name in FUSED else str(work.func)
    return f"{what}({', '.join([*(plain(a) for a in work.args), *named])})"


def _layout(ref: Ref) -> str:
    """The order of axes in memory, where it is not their own."""
    order = _order(ref)
    return "" if order == sorted(order) else f"@{','.join(map(str, order))}"


def _order(ref: Ref) -> list[int]:
    axes = list(range(len(ref.shape)))
    return sorted(axes, key=lambda k: -ref.strides[k]) if ref.strides else axes


def arguments_of(work: Work, shapes: Shapes, device: torch.device) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(args, kwargs) to run ``work`` with, tensors of the given shapes by id drawn anew."""

    def made(value: Any) -> Any:
        if isinstance(value, Ref):
            return _tensor(value, shapes, device)
        if isinstance(value, (list, tuple)):
            return type(value)(made(v) for v in value)
        return value

    args, kwargs = made(tuple(work.args)), {k: made(v) for k, v in work.kwargs.items()}
    if work.name in _NAMES_SIZES:
        args = (args[0], list(args[_NAMES_SIZES[work.name]].shape), *args[2:])
    return args, {k: device if k == "device" else v for k, v in kwargs.items()}


def _tensor(ref: Ref, shapes: Shapes, device: torch.device) -> Tensor:
    shape = shapes.get(ref.id, ref.shape)
    if not (ref.dtype.is_floating_point or ref.dtype.is_complex):
        return torch.zeros(shape, dtype=ref.dtype, device=device)
    # dense in the order of the traced strides: a transposed weight is read as a transposed one
    order = _order(ref)
    dense = torch.randn([shape[k] for k in order], device=device, dtype=torch.float32).to(ref.dtype)
    back = [order.index(k) for k in range(len(shape))]
    return dense.permute(back) if back else dense
