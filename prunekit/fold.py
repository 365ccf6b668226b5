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
    found_by: dict[str, list[tuple[int, frozenset[int], float, Note]]] = {}
    notes = []
    for op, before, after in changed_scalars(structure.trace, rehearsal):
        name = packet(op)
        base = op.args[0] if op.args and isinstance(op.args[0], Ref) else None
        # mul(x, s) -> mul(x, s'): what wrote x gains s / s'; for a division it is the other way round.
        factor = before / after if name == "aten.mul" else after / before if name == "aten.div" else 0.0
        found = tracer.writers(base) if base is not None and factor > 0 else None
        if found is None:
            notes.append(Note(op.where, before, after))
            continue
        for tensor, rows in found.items():
            found_by.setdefault(tensor, []).append(
                (tracer.last, frozenset(rows), factor, Note(op.where, before, after))
            )
    factors: dict[tuple[str, int, int], float] = {}
    for tensor, entries in found_by.items():
        for taken in dict.fromkeys(e[1] for e in entries):
            same = [e for e in entries if e[1] & taken]
            # a layer that is called several times is scaled once, if all its calls ask for the same
            if (
                len({e[2] for e in same}) > 1
                or len({e[0] for e in same}) != tracer.uses(tensor)
                or len({e[1] for e in same}) > 1
            ):
                notes += [e[3] for e in same]
                continue
            factors.update({(tensor, 0, row): same[0][2] for row in taken})
    return replace(plan, folds=tuple(_folds(factors, kept))), tuple(dict.fromkeys(notes))


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
        self.last = 0  # number of the layer's operator that ``writers`` found
        self.number = {id(op): n for n, op in enumerate(trace.ops)}
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
            self.last = self.number[id(op)]
            if name in ("aten.addmm", "aten.mm", "aten.bmm", "aten.add"):
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

    def uses(self, parameter: str) -> int:
        """How many operators read a parameter."""
        return len(self.consumers.get(self.trace.state[parameter].id, []))

    def _rows(self, op: Op, chain: list[Op], ref: Ref) -> dict[str, set[int]] | None:
        layer = self._layer(op)
        if layer is None:
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
        return {parameter.name: rows for parameter in layer}

    def _layer(self, op: Op) -> list[Ref] | None:
        """Weight and bias of the linear layer whose result ``op`` writes."""
        name = packet(op)
        if name == "aten.addmm":
            weight, bias = self._parameter(op.args[2]), op.args[0]
            return [weight, bias] if weight is not None and bias.kind == "parameter" else None
        if name in ("aten.mm", "aten.bmm"):
            weight = self._parameter(op.args[1])
            return None if weight is None else [weight]
        # a product and its bias apart, as torch computes a linear layer on a transposed tensor
        product, bias = op.args[0], op.args[1]
        if op.kwargs or not isinstance(bias, Ref) or bias.kind != "parameter" or len(bias.shape) != 1:
            return None
        while (before := self.producer.get(product.id)) is not None and len(self.consumers[product.id]) == 1:
            if packet(before) in ("aten.mm", "aten.bmm"):
                weight = self._parameter(before.args[1])
                return None if weight is None or weight.shape[0] != bias.shape[0] else [weight, bias]
            if packet(before) not in ("aten.view", "aten._unsafe_view"):
                return None
            product = before.args[0]
        return None

    def _parameter(self, ref: Ref) -> Ref | None:
        """The parameter (out, in) whose transpose a linear layer multiplies with, seen through a batch of copies."""
        op = self.producer.get(ref.id)
        while op is not None and packet(op) in ("aten.expand", "aten.view") and op.args[0].shape[-2:] == ref.shape[-2:]:
            op = self.producer.get(op.args[0].id)
        if op is None or packet(op) != "aten.t":
            return None
        base = op.args[0]
        return base if isinstance(base, Ref) and base.kind == "parameter" else None
