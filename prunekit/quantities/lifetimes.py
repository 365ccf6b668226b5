"""Memory of activations: the bytes that are alive at the fullest moment of a forward pass, out of its trace.

A tensor is alive from the operator that makes it to the last one that reads it or a view of it; what the model returns
is alive to the end. Parameters, buffers and inputs are not counted: they are there before and after. What a device runs
as one call keeps nothing inside it. Python may hold a tensor longer, and an allocator rounds up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from prunekit.coupling.structure import Structure
from prunekit.errors import InputError
from prunekit.graph.nodes import Call, Op, Ref, Trace, packet
from prunekit.quantities.work import FUSED, Shapes, elements_of


@dataclass(frozen=True, eq=False)
class Lifetimes:
    """Every tensor with memory of its own that operators make, and the first and last step at which it is alive."""

    made: tuple[Ref, ...]
    first: np.ndarray[Any, Any]
    last: np.ndarray[Any, Any]

    @classmethod
    def of(cls, trace: Trace) -> Lifetimes:
        """Of one forward pass; a step is an operator, or a call that runs as one."""
        walk = _Walk()
        for op in trace.ops:
            walk.over(op)
        for ref in trace.outputs:
            walk.read(ref, walk.step)
        births = [walk.births[ref.id] for ref in walk.made]
        return cls(tuple(walk.made), np.array(births, int), np.array([walk.last[ref.id] for ref in walk.made], int))

    def peak(self, shapes: Shapes) -> int:
        """Bytes at the fullest step, when tensors have these shapes by id."""
        if not self.made:
            return 0
        sizes = np.array([elements_of([ref], shapes) * ref.dtype.itemsize for ref in self.made], np.int64)
        change = np.zeros(int(self.last.max()) + 2, np.int64)
        np.add.at(change, self.first, sizes)
        np.subtract.at(change, self.last + 1, sizes)
        return int(change.cumsum().max())


class _Walk:
    """Goes through the operators in order, and tells whose memory each tensor lies in."""

    def __init__(self) -> None:
        self.step = -1
        self.made: list[Ref] = []
        self.births: dict[int, int] = {}
        self.last: dict[int, int] = {}
        self._root: dict[int, int] = {}  # of every tensor that an operator gave, the one that has the memory
        self._inside: set[int] = set()  # made within a call that runs as one, and gone when it returns
        self._whole: Call | None = None  # the one that is gone through

    def over(self, op: Op) -> None:
        """``op`` reads what it is given until it ends, and makes what it returns."""
        whole = op.call if op.call is not None and op.call.name in FUSED else None
        if whole is None or whole is not self._whole:
            self.step += 1
        self._whole, step = whole, self.step
        for ref in op.inputs:
            self.read(ref, step)
        returned = None if whole is None else {ref.id for ref in whole.outputs}
        for ref, source in _with_sources(op):
            root = self._root.get(source.id, source.id) if source is not None else ref.id
            if returned is not None and (source is None or root in self._inside):
                root = ref.id
                if ref.id not in returned:
                    self._inside.add(ref.id)
            self._root[ref.id] = root
            if root == ref.id and ref.id not in self._inside and ref.id not in self.births:
                self.made.append(ref)
                self.births[ref.id] = self.last[ref.id] = step
            self.read(ref, step)

    def read(self, ref: Ref, step: int) -> None:
        root = self._root.get(ref.id, ref.id)
        if root in self.births:
            self.last[root] = step


def _with_sources(op: Op) -> Iterator[tuple[Ref, Ref | None]]:
    """Every output of ``op`` that has memory, and the argument in whose memory it lies; None: in its own."""
    given, name = {ref.id: ref for ref in op.inputs}, packet(op)
    is_view = getattr(op.func, "is_view", False) or name == "aten._unsafe_view"  # which autograd is not told of
    outputs = op.outputs
    if name == _BATCH_NORM and not op.args[_TRAINS]:
        outputs = outputs[:1]  # the statistics of the batch are empty then on every device but meta
    for ref in outputs:
        yield ref, given.get(ref.id, op.inputs[0] if is_view else None)  # the same tensor is written in place


_BATCH_NORM, _TRAINS = "aten.native_batch_norm", 5


def peak_activations(structure: Structure, kept: Mapping[str, Tensor], lifetimes: Lifetimes | None = None) -> int:
    """Bytes of activations at the fullest moment when each named group keeps the given units.

    Raises InputError where whole blocks go: what is alive without them is another question than their bytes.
    """
    if structure.gone(kept):
        raise InputError(
            "activations are followed through the operators that stay, and blocks or branches would go",
            where="target",
            hint="limit activations in a call for widths, before or after one for depth",
        )
    lifetimes = lifetimes or Lifetimes.of(structure.trace)
    return lifetimes.peak(structure.shapes(kept) if kept else {})
