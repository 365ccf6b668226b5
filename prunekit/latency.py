"""Latency of a pruned model before it exists: every operator is timed once a shape, on the device at hand."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.coupling.coupler import packet
from prunekit.coupling.structure import Structure
from prunekit.measure import latency
from prunekit.trace.record import Op, Ref

_RUNS, _SECONDS = 25, 0.05  # of one operator: at most so often and about so long
Key = tuple[Any, ...]


class LatencyTable:
    """Seconds by operator and shapes on one device. Each entry is measured when it is first asked for.

    Views cost nothing. An operator that cannot be run alone at other shapes (its arguments name sizes) is given the
    time of its traced shapes, scaled by the elements of its result.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[Key, float | None] = {}

    def of(self, op: Op, shapes: Mapping[int, tuple[int, ...]]) -> float:
        """Seconds of ``op`` when tensors have the given shapes by id."""
        if op.is_constant or not op.outputs or _is_view(op):
            return 0.0
        here = self._measured(op, shapes)
        if here is not None:
            return here
        before = self._measured(op, {})
        if before is None:
            return 0.0
        return before * _elements(op.outputs, shapes) / max(1, _elements(op.outputs, {}))

    def _measured(self, op: Op, shapes: Mapping[int, tuple[int, ...]]) -> float | None:
        key = _key(op, shapes)
        if key not in self.seconds:
            self.seconds[key] = self._run(op, shapes)
        return self.seconds[key]

    def _run(self, op: Op, shapes: Mapping[int, tuple[int, ...]]) -> float | None:
        def made(value: Any) -> Any:
            if isinstance(value, Ref):
                return self._tensor(value, shapes)
            if isinstance(value, (list, tuple)):
                return type(value)(made(v) for v in value)
            return value

        try:
            args, kwargs = made(tuple(op.args)), {k: made(v) for k, v in op.kwargs.items()}
            if packet(op) in _NAMES_SIZES:
                args = (args[0], list(args[_NAMES_SIZES[packet(op)]].shape), *args[2:])
            kwargs = {k: self.device if k == "device" else v for k, v in kwargs.items()}
            return self._time(lambda: op.func(*args, **kwargs))
        except (RuntimeError, TypeError, NotImplementedError, IndexError, ValueError):
            return None  # the arguments name sizes that belong to the traced shapes

    def _tensor(self, ref: Ref, shapes: Mapping[int, tuple[int, ...]]) -> Tensor:
        shape = shapes.get(ref.id, ref.shape)
        if not (ref.dtype.is_floating_point or ref.dtype.is_complex):
            return torch.zeros(shape, dtype=ref.dtype, device=self.device)
        # dense in the order of the traced strides: a transposed weight is read as a transposed one
        order = sorted(range(len(shape)), key=lambda k: -ref.strides[k]) if ref.strides else list(range(len(shape)))
        dense = torch.randn([shape[k] for k in order], device=self.device, dtype=torch.float32).to(ref.dtype)
        back = [order.index(k) for k in range(len(shape))]
        return dense.permute(back) if back else dense

    def _time(self, run: Callable[[], Any]) -> float:
        times: list[float] = []
        began = time.perf_counter()
        run()
        while len(times) < 3 or (len(times) < _RUNS and time.perf_counter() - began < _SECONDS):
            start = time.perf_counter()
            run()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            times.append(time.perf_counter() - start)
        return statistics.median(times)


_NAMES_SIZES = {"aten.native_layer_norm": 2}  # the argument whose shape is the one that another argument names


def _is_view(op: Op) -> bool:
    return bool(op.func.is_view) or packet(op) in ("aten.detach", "aten.alias", "aten._unsafe_view", "aten.lift_fresh")


def _elements(refs: tuple[Ref, ...], shapes: Mapping[int, tuple[int, ...]]) -> int:
    total = 0
    for ref in refs:
        count = 1
        for size in shapes.get(ref.id, ref.shape):
            count *= size
        total += count
    return total


def _key(op: Op, shapes: Mapping[int, tuple[int, ...]]) -> Key:
    def plain(value: Any) -> Any:
        if isinstance(value, Ref):
            return (shapes.get(value.id, value.shape), value.dtype, _order(value))
        if isinstance(value, (list, tuple)):
            return tuple(plain(v) for v in value)
        return repr(value)

    return (str(op.func), plain(op.args), tuple((k, plain(v)) for k, v in sorted(op.kwargs.items())))


def _order(ref: Ref) -> tuple[int, ...]:
    return tuple(sorted(range(len(ref.shape)), key=lambda k: -ref.strides[k])) if ref.strides else ()


def predictor(model: nn.Module, structure: Structure) -> Callable[[Mapping[str, Tensor]], float]:
    """Seconds of a forward pass on the example inputs when each named group keeps the given units.

    The sum over operators is brought to the measured latency of the model as it is by one factor: what happens between
    operators is in it. The table is kept for the life of the function.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    table = LatencyTable(device)

    def total(kept: Mapping[str, Tensor]) -> float:
        shapes = structure.shapes(structure.alive(kept)) if kept else {}
        with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            return sum(table.of(op, shapes) for op in structure.trace.ops)

    whole = total({})
    factor = latency(model, structure.inputs, runs=15, warmup=3).median / whole if whole else 0.0
    return lambda kept: factor * total(kept)
