"""Keeps the function where an operator's own constant depends on a width, such as 1/sqrt(head_dim) in attention.

The rehearsal shows which constants changed. Where the changed factor multiplies something that a linear layer, or
the affine part of a norm, has just written, the inverse factor is folded into those parameters; where it does not,
the change is reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from prunekit.coupling.coupler import packet
from prunekit.coupling.structure import Structure
from prunekit.plan import Fold, Plan
from prunekit.rehearse import changed_scalars
from prunekit.trace.record import Op, Ref, Trace


@dataclass(frozen=True)
class Note:
    """A constant that changes with a width and could not be compensated."""

    where: str
    before: float
    after: float


_VIEWS = {
    "aten.view",
    "aten._unsafe_view",
    "aten.permute",
    "aten.transpose",
    "aten.t",
    "aten.expand",
    "aten.clone",
    "aten.unsqueeze",
    "aten.squeeze",
    "aten.select",
    "aten.slice",
    "aten.unbind",
    "aten.split",
    "aten.split_with_sizes",
    "aten.alias",
    "aten.detach",
    "aten._reshape_alias",
}
_PARTS = {"aten.select", "aten.slice", "aten.unbind", "aten.split", "aten.split_with_sizes"}


def with_folds(plan: Plan, structure: Structure, rehearsal: Trace) -> tuple[Plan, tuple[Note, ...]]:
    """``plan`` with the folds that undo changed constants, and notes about those that it cannot undo."""
    tracer = _Tracer(structure.trace)
    kept = {(c.tensor, c.axis): c.kept for c in plan.cuts}
    factors: dict[tuple[str, int, int], float] = {}
    notes = []
    for number, before, after in changed_scalars(structure.trace, rehearsal):
        op = structure.trace.ops[number]
        name = packet(op)
        base = op.args[0] if op.args and isinstance(op.args[0], Ref) else None
        # mul(x, s) -> mul(x, s'): what wrote x gains s / s'; for a division it is the other way round.
        factor = before / after if name == "aten.mul" else after / before if name == "aten.div" else 0.0
        found = tracer.writers(base) if base is not None and factor > 0 else None
        if found is None:
            notes.append(Note(op.where, before, after))
            continue
        for tensor, rows in found.items():
            for row in rows:
                key = (tensor, 0, row)
                factors[key] = factors.get(key, 1.0) * factor
    return replace(plan, folds=tuple(_folds(factors, kept))), tuple(notes)


def _folds(factors: dict[tuple[str, int, int], float], kept: dict[tuple[str, int], tuple[int, ...]]) -> Iterable[Fold]:
    grouped: dict[tuple[str, int, float], list[int]] = {}
    for (tensor, axis, row), factor in factors.items():
        grouped.setdefault((tensor, axis, factor), []).append(row)
    for (tensor, axis, factor), rows in grouped.items():
        alive = kept.get((tensor, axis))
        if alive is None:
            after = tuple(sorted(rows))
        else:
            place = {old: new for new, old in enumerate(alive)}
            after = tuple(sorted(place[r] for r in rows if r in place))
        if after and abs(factor - 1.0) > 1e-12:
            yield Fold(tensor, axis, after, factor)


class _Tracer:
    """Finds the parameter rows that scale a tensor, walking back through what only rearranges it."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.producer: dict[int, Op] = {}
        self.consumers: dict[int, list[Op]] = {}
        for op in trace.ops:
            for r in op.outputs:
                self.producer.setdefault(r.id, op)
            for r in tree_leaves((op.args, op.kwargs)):
                if isinstance(r, Ref):
                    self.consumers.setdefault(r.id, []).append(op)

    def writers(self, ref: Ref) -> dict[str, set[int]] | None:
        """Rows on axis 0 of parameters such that scaling them scales ``ref`` and nothing else; None if unknown."""
        chain: list[Op] = []
        at = ref
        while True:
            op = self.producer.get(at.id)
            if op is None:
                return None
            name = packet(op)
            if name in ("aten.addmm", "aten.mm"):
                return self._rows(op, chain, ref)
            if name == "aten.native_layer_norm" and len(op.args[2].shape if op.args[2] else ()) == 1:
                return self._whole([r for r in op.args[2:4] if isinstance(r, Ref)], chain)
            if name == "aten.mul" and self._affine(op) is not None:
                affine = self._affine(op)
                return self._whole([affine] if affine else [], chain)
            if name not in _VIEWS or not self._only_use(op, at):
                return None
            chain.append(op)
            at = op.args[0]

    def _only_use(self, op: Op, out: Ref) -> bool:
        """Whether no other operator reads the same numbers; parts of one tensor may be read side by side."""
        others = [c for c in self.consumers.get(op.args[0].id, []) if c is not op]
        return all(packet(op) in _PARTS and packet(c) in _PARTS for c in others)

    def _affine(self, op: Op) -> Ref | None:
        """The one-dimensional parameter that a multiplication applies, if that is what it does."""
        for r in op.args[:2]:
            if isinstance(r, Ref) and r.kind == "parameter" and len(r.shape) == 1:
                return r
        return None

    def _whole(self, refs: list[Ref], chain: list[Op]) -> dict[str, set[int]] | None:
        if not refs or any(packet(op) in _PARTS for op in chain):
            return None
        if any(len(self.consumers.get(r.id, [])) != 1 for r in refs):
            return None
        return {r.name: set(range(r.shape[0])) for r in refs}

    def _rows(self, op: Op, chain: list[Op], ref: Ref) -> dict[str, set[int]] | None:
        bias = op.args[0] if packet(op) == "aten.addmm" else None
        weight = self._parameter(op.args[2] if bias is not None else op.args[1])
        if weight is None or (bias is not None and bias.kind != "parameter"):
            return None
        numbers: Tensor = torch.arange(op.outputs[0].shape[-1]).expand(op.outputs[0].shape)
        values: dict[int, Tensor] = {op.outputs[0].id: numbers}
        for step in reversed(chain):
            args, kwargs = tree_map(lambda x: values[x.id] if isinstance(x, Ref) else x, (step.args, step.kwargs))
            result = step.func(*args, **kwargs)
            for out, value in zip(step.outputs, tree_leaves(result), strict=True):
                values[out.id] = value
        final = values.get(ref.id, numbers)
        small = final[tuple(0 if stride == 0 else slice(None) for stride in final.stride())]
        rows = {int(r) for r in torch.unique(small)}
        found = {weight.name: rows}
        if bias is not None:
            found[bias.name] = rows
        return found

    def _parameter(self, ref: Ref) -> Ref | None:
        """The parameter (out, in) whose transpose a linear layer multiplies with."""
        op = self.producer.get(ref.id)
        if op is None or packet(op) != "aten.t":
            return None
        base = op.args[0]
        return base if isinstance(base, Ref) and base.kind == "parameter" else None
