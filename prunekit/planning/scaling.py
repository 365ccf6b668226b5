"""Which parameter rows scale a tensor of a trace, and nothing else that the model computes.

Walks back from the tensor through what is homogeneous of degree one (views, parts, rotations, sums, products with
constants) to the layers that wrote it. Where a part of a fused result is taken, only the rows of that part count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from prunekit.graph.nodes import Op, Ref, Trace, packet
from prunekit.operators import TABLE, Scales, Table

_HELD = (Scales.VIEW, Scales.PART)

Rows = dict[str, tuple[int, frozenset[int]]]  # parameter -> number of the operator that reads it, rows on axis 0


class Scaling:
    """The searches of one trace. ``dependent`` are the ids of tensors that depend on the model's input."""

    def __init__(self, trace: Trace, dependent: set[int], table: Table = TABLE) -> None:
        self.state, self.dependent, self.table = trace.state, dependent, table
        self.returned = {r.id for r in trace.outputs}
        self.producer: dict[int, Op] = {}
        self.consumers: dict[int, list[Op]] = {}
        self.number = {id(op): n for n, op in enumerate(trace.ops)}
        for op in trace.ops:
            for r in op.outputs:
                self.producer.setdefault(r.id, op)
            for r in tree_leaves((op.args, op.kwargs)):
                if isinstance(r, Ref):
                    self.consumers.setdefault(r.id, []).append(op)

    def kind(self, op: Op) -> Scales:
        """How the result of ``op`` scales with its operands."""
        return self.table.of(op).scales

    def writers(self, ref: Ref, target: Op) -> Rows | None:
        """Rows of parameters whose scaling scales ``ref`` as ``target`` reads it, and nothing else; None if unknown."""
        for side in (0, 1):  # of a product of two activations either one may be scaled
            fused: set[int] = set()
            while True:
                region = _Region(self, side, fused)
                if not region.scale(ref):
                    break
                loose = region.loose(target)
                if not loose:
                    return region.rows
                more = {id(op) for op in loose if op is not None} - fused
                if None in loose or not more:
                    break
                fused |= more
        return None

    def partner(self, op: Op) -> tuple[Ref, Op] | None:
        """What the result of ``op`` is multiplied with in a batched product, and that product.

        None where the result is read by anything else as well.
        """
        at = op.outputs[0]
        while at.id not in self.returned and len(readers := self.consumers.get(at.id, [])) == 1:
            reader = readers[0]
            if (kind := self.kind(reader)) is Scales.BATCHED:
                left, right = reader.args[:2]
                return (right if left.id == at.id else left), reader
            if kind is not Scales.VIEW:
                return None
            at = reader.outputs[0]
        return None

    def uses(self, parameter: str) -> int:
        """How many operators read a parameter."""
        return len(self.consumers.get(self.state[parameter].id, []))

    def chain(self, ref: Ref) -> Rows | None:
        """``writers`` along a single line of views, of which some take a part of what a fused layer wrote."""
        line: list[Op] = []
        at = ref
        while (op := self.producer.get(at.id)) is not None:
            found = self.layer(op)
            if found is not None:
                return self._read_rows(op, found, line, ref)
            if self.kind(op) not in _HELD or not self._only_use(op):
                return None
            line.append(op)
            at = op.args[0]
        return None

    def _only_use(self, op: Op) -> bool:
        """Whether no other operator reads the same numbers; parts of one tensor may be read side by side."""
        others = [c for c in self.consumers.get(op.args[0].id, []) if c is not op]
        return all(self.kind(op) is Scales.PART and self.kind(c) is Scales.PART for c in others)

    def _read_rows(self, op: Op, found: Sequence[tuple[Ref, Tensor]], line: Sequence[Op], ref: Ref) -> Rows | None:
        """Rows behind the columns of ``op``'s result that arrive at ``ref`` after the views of ``line``.

        None where another part that is read has some of these columns too, as of other tokens.
        """
        columns: Tensor = torch.arange(op.outputs[0].shape[-1], device="cpu").expand(op.outputs[0].shape)
        values = {op.outputs[0].id: columns}
        for step in reversed(line):
            _replay(step, values)
        used = _columns_in(values.get(ref.id, columns))
        on_the_way = {step.args[0].id for step in line} | {ref.id}
        for step in line:
            for reader in self.consumers[step.args[0].id] if self.kind(step) is Scales.PART else ():
                if any(isinstance(r, Ref) and r.id not in values for r in tree_leaves((reader.args, reader.kwargs))):
                    return None
                _replay(reader, values)
                others = [r for r in reader.outputs if r.id not in on_the_way and self._is_read(r)]
                if any(bool(torch.isin(_columns_in(values[r.id]), used).any()) for r in others):
                    return None
        return {p.name: (self.number[id(op)], frozenset(rows[used].tolist())) for p, rows in found}

    def _is_read(self, ref: Ref) -> bool:
        return ref.id in self.consumers or ref.id in self.returned

    def layer(self, op: Op) -> list[tuple[Ref, Tensor]] | None:
        """Parameters of the linear layer whose result ``op`` writes, each with its row for every column."""
        name = packet(op)
        if name == "aten.addmm":
            weight, bias = self._weight(op.args[2]), self._rows_of(op.args[0])
            return None if weight is None or bias is None else [weight, bias]
        if name in ("aten.mm", "aten.bmm"):
            found = self._weight(op.args[1])
            return None if found is None else [found]
        if name != "aten.add":
            return None
        # a product and its bias apart, as torch computes a linear layer on a transposed tensor
        product, bias = op.args[0], self._rows_of(op.args[1])
        if op.kwargs or bias is None or len(op.args[1].shape) != 1:
            return None
        while (before := self.producer.get(product.id)) is not None and len(self.consumers[product.id]) == 1:
            if packet(before) in ("aten.mm", "aten.bmm"):
                weight = self._weight(before.args[1])
                return None if weight is None or weight[1].shape != bias[1].shape else [weight, bias]
            if packet(before) not in ("aten.view", "aten._unsafe_view"):
                return None
            product = before.args[0]
        return None

    def _weight(self, ref: Ref) -> tuple[Ref, Tensor] | None:
        """The parameter (out, in), or rows of it, whose transpose a linear layer multiplies with."""
        op = self.producer.get(ref.id)
        while op is not None and packet(op) in ("aten.expand", "aten.view") and op.args[0].shape[-2:] == ref.shape[-2:]:
            op = self.producer.get(op.args[0].id)
        return None if op is None or packet(op) != "aten.t" else self._rows_of(op.args[0])

    def _rows_of(self, ref: object) -> tuple[Ref, Tensor] | None:
        """The parameter that ``ref`` is, or is cut from along axis 0, and the rows it takes."""
        line: list[Op] = []
        at = ref
        while isinstance(at, Ref) and at.kind != "parameter":
            op = self.producer.get(at.id)
            if op is None or packet(op) not in ("aten.split", "aten.split_with_sizes", "aten.slice", "aten.detach"):
                return None
            line.append(op)
            at = op.args[0]
        if not isinstance(at, Ref) or not isinstance(ref, Ref) or not at.shape or at.shape[1:] != ref.shape[1:]:
            return None
        values = {
            at.id: torch.arange(at.shape[0], device="cpu").reshape(-1, *[1] * (len(at.shape) - 1)).expand(at.shape)
        }
        for step in reversed(line):
            _replay(step, values)
        return at, values[ref.id].flatten(1)[:, 0] if len(ref.shape) > 1 else values[ref.id]


def _columns_in(values: Tensor) -> Tensor:
    found: Tensor = torch.unique(values[tuple(0 if stride == 0 else slice(None) for stride in values.stride())])
    return found


def _replay(step: Op, values: dict[int, Tensor]) -> None:
    args, kwargs = tree_map(lambda x: values[x.id] if isinstance(x, Ref) else x, (step.args, step.kwargs))
    for out, value in zip(step.outputs, tree_leaves(step.func(*args, **kwargs)), strict=True):
        values[out.id] = value


@dataclass
class _Region:
    """Tensors that are scaled as a whole, and the operators between them; ``fused`` operators take parts of more."""

    search: Scaling
    side: int
    fused: set[int]
    scaled: dict[int, Ref] = field(default_factory=dict)
    ops: dict[int, Op] = field(default_factory=dict)
    rows: Rows = field(default_factory=dict)

    def scale(self, ref: Ref) -> bool:
        """Adds what has to be scaled so that ``ref`` is; False where that cannot be."""
        if ref.id in self.scaled:
            return True
        self.scaled[ref.id] = ref
        if ref.kind == "parameter":
            reader = self.search.consumers[ref.id][0]
            return self._take({ref.name: (self.search.number[id(reader)], frozenset(range(ref.shape[0])))})
        op = self.search.producer.get(ref.id)
        if op is None:
            return False
        if id(op) in self.fused:
            return self._take(self.search.chain(ref))
        self.ops[id(op)] = op
        found = self.search.layer(op)
        if found is not None:
            number = self.search.number[id(op)]
            return self._take({p.name: (number, frozenset(rows.tolist())) for p, rows in found})
        return self._through(op)

    def _through(self, op: Op) -> bool:
        kind = self.search.kind(op)
        tensors = [r for r in tree_leaves(op.args) if isinstance(r, Ref)]
        if kind in (*_HELD, Scales.LINEAR, Scales.PADDED):
            filled = kind is Scales.PADDED and any(op.args[2:])
            return not filled and self.scale(tensors[0])
        if kind is Scales.ZEROS:
            return True
        if kind is Scales.SUM:
            scalars = packet(op) in ("aten.add", "aten.sub") and len(tensors) < 2
            return not scalars and all(self.scale(r) for r in tensors)
        if kind is Scales.NORM:
            affine = [r for r in op.args[2:4] if isinstance(r, Ref)]
            return bool(affine) and all(r.kind == "parameter" and self.scale(r) for r in affine)
        if kind in (Scales.PRODUCT, Scales.QUOTIENT):
            return self._product(op, tensors)
        return kind is Scales.BATCHED and self.scale(tensors[self.side])

    def _product(self, op: Op, tensors: list[Ref]) -> bool:
        gains = [r for r in tensors if r.kind == "parameter" and len(r.shape) == 1]
        if gains and self.search.kind(op) is Scales.PRODUCT:  # the affine part of a norm
            return self.scale(gains[0])
        moving = [r for r in tensors if r.id in self.search.dependent]
        if len(moving) != 1 or (self.search.kind(op) is Scales.QUOTIENT and moving[0] is not op.args[0]):
            return False
        return self.scale(moving[0])

    def _take(self, rows: Rows | None) -> bool:
        if rows is None or any(name in self.rows for name in rows):
            return False
        self.rows.update(rows)
        return True

    def loose(self, target: Op) -> list[Op | None]:
        """Operators through which scaled numbers would get elsewhere: those that take a part, else None."""
        found: list[Op | None] = []
        for ref in self.scaled.values():
            inside = [c for c in self.search.consumers.get(ref.id, []) if c is target or id(c) in self.ops]
            if ref.id in self.search.returned or len(inside) < len(self.search.consumers.get(ref.id, [])):
                parts = [c for c in inside if self.search.kind(c) is Scales.PART]
                found += parts or [None]
        for op in self.ops.values():
            if self.search.kind(op) is Scales.PART and any(out.id not in self.scaled for out in op.outputs):
                found.append(op)
        return found
