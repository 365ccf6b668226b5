"""Real numbers beside a trace, for a forward that reads values; and what it read, for a rehearsal to read again.

A detector looks at scores before it knows how many boxes there are. Without numbers that cannot be followed. With them,
every operator runs twice: on meta tensors, where it is recorded, and on real ones, which answer whatever forward asks.
What was answered is kept in order: a pruned model that is rehearsed without numbers takes the same decisions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from prunekit.errors import TraceError
from prunekit.graph.tree import mapped, of_type
from prunekit.modules.write_guard import Originals

MISSING = object()
Decision = tuple[str, Any]
_ATTRIBUTE = "_prunekit_real"
READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default}  # what gives Python a value
_INDEX = torch.ops.aten.index.Tensor


class Numbers:
    """The real side of a trace. ``decisions`` are what forward was told, in order; ``originals`` its tensors."""

    def __init__(self, device: torch.device, originals: Originals) -> None:
        self.device, self.originals = device, originals
        self.decisions: list[Decision] = []

    def attach(self, meta: Tensor, real: Tensor) -> None:
        """Notes the numbers of a meta tensor; they live as long as it does."""
        setattr(meta, _ATTRIBUTE, real)

    def of(self, meta: Tensor) -> Tensor | None:
        """The numbers of a meta tensor, where they are known."""
        found: Tensor | None = getattr(meta, _ATTRIBUTE, None)
        return found

    def evaluate(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The operator's real result; MISSING where a number is not known or the kernel refuses."""
        lost = False

        def real(leaf: Any) -> Any:
            nonlocal lost
            if not isinstance(leaf, Tensor):
                return leaf
            found = getattr(leaf, _ATTRIBUTE, None) if leaf.is_meta else leaf
            lost = lost or found is None
            return found

        args, kwargs = mapped(args, real), mapped(kwargs, real)
        if lost:
            return MISSING
        if kwargs.get("device") is not None or not any(True for _ in of_type((args, kwargs), Tensor)):
            kwargs = {**kwargs, "device": self.device} if "device" in str(func._schema) else kwargs
        self.originals.before(func, args, kwargs)
        try:
            with _disable_current_modes(), torch._C.DisableTorchFunction(), torch.device(self.device):
                return func(*args, **kwargs)
        except (RuntimeError, NotImplementedError, TypeError, IndexError, ValueError):
            return MISSING

    def carry(self, result: Any, real: Any) -> None:
        """Gives the tensors of a meta result the numbers of the real one."""
        for meta, number in zip(of_type(result, Tensor), of_type(real, Tensor), strict=False):
            if meta.shape == number.shape:
                self.attach(meta, number)

    def decided(self, func: Any, real: Any) -> None:
        """Keeps what forward is told."""
        told = real if func in READS else [tuple(t.shape) for t in of_type(real, Tensor)]
        self.decisions.append((str(func), told))


def on_zeros(func: Any, args: Any, kwargs: Any) -> Any:
    """The meta result of an operator without a meta kernel: what its own kernel gives for zeros of these shapes."""

    def zeros(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return (
            torch.ones(leaf.shape, dtype=leaf.dtype, device="cpu")
            if leaf.is_floating_point()
            else leaf.new_zeros(leaf.shape, device="cpu")
        )

    with _disable_current_modes(), torch._C.DisableTorchFunction():
        result = func(*mapped(args, zeros), **mapped(kwargs, zeros))
    return mapped(result, lambda t: torch.empty_like(t, device="meta") if isinstance(t, Tensor) else t)


class Replay:
    """Decisions of an earlier trace, taken again in order."""

    def __init__(self, decisions: Iterable[Decision]) -> None:
        self._left = list(decisions)[::-1]
        self.names = {name for name, _ in self._left}

    def next(self, name: str) -> Any:
        """What ``name`` told then. Raises TraceError where the pruned model asks for something else."""
        if not self._left or self._left[-1][0] != name:
            raise TraceError(f"the pruned model reads another value than the original ({name})")
        return self._left.pop()[1]

    def result(self, func: Any, args: Any) -> Any:
        """What an operator gives whose shape depends on values."""
        told = self.next(str(func))
        if func in READS:
            return told
        if func is _INDEX:
            return _indexed(args, told[0])
        shapes = [torch.empty(shape, device="meta", dtype=_dtype(func, args, k)) for k, shape in enumerate(told)]
        return shapes[0] if len(shapes) == 1 else tuple(shapes)


def _indexed(args: Any, shape: tuple[int, ...]) -> Tensor:
    """``x[mask]`` where the mask has as many places as it had: the axes beside it are those of the pruned x."""
    base, indices = args[0], args[1]
    picked, at = [], 0
    for index in indices:
        if isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8):
            first = next((k for k, i in enumerate(indices) if i is not None), 0)
            picked += [torch.empty(shape[first], dtype=torch.long, device="meta")] * index.dim()
            at += index.dim()
        else:
            picked.append(index)
            at += 1
    result: Tensor = torch.ops.aten.index.Tensor(base, picked)
    return result


def _dtype(func: Any, args: Any, k: int) -> torch.dtype:
    base = next(of_type(args, Tensor))
    floating = func.overloadpacket in (torch.ops.aten.masked_select, torch.ops.aten.repeat_interleave)
    return base.dtype if floating or (k == 0 and "unique" in str(func)) else torch.long


class ValueMode(TorchFunctionMode):
    """Answers Python that takes values out of tensors, or makes tensors out of values, which no operator shows."""

    def __init__(self, numbers: Numbers | None, replay: Replay | None, to_meta: Any, read: Any) -> None:
        super().__init__()
        self.numbers, self.replay, self.to_meta, self.read = numbers, replay, to_meta, read

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _METHODS:
            name = getattr(func, "__name__", str(func))
            if self.replay is not None:
                return self.replay.next(name)
            real = getattr(args[0], _ATTRIBUTE, None)
            if self.numbers is not None and real is not None:
                with _disable_current_modes(), torch._C.DisableTorchFunction():
                    value = func(real, *args[1:], **kwargs)
                self.numbers.decisions.append((name, value))
                self.read(args[0])
                return value
        if func in _MAKES and self.numbers is not None and not any(True for _ in of_type(args, Tensor)):
            with _disable_current_modes(), torch._C.DisableTorchFunction():
                return self.to_meta(func(*args, **{**kwargs, "device": self.numbers.device}))
        return func(*args, **kwargs)


_METHODS = {Tensor.tolist, Tensor.numpy}
_MAKES = {torch.tensor, torch.as_tensor}
