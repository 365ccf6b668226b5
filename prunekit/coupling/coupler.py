"""Walks a trace once and hands every operator to its rule, which moves and unites labels."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import torch

from prunekit.coupling.limits import limit_choices
from prunekit.coupling.siblings import couple_alike, couple_unread
from prunekit.graph.nodes import Call, Op, Ref, Trace, packet
from prunekit.labels.labelling import Labelling
from prunekit.operators import TABLE, Positions, Table

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Coupler(Labelling):
    """The labelling of one trace, by the rules of a table."""

    trace: Trace
    table: Table = field(default_factory=lambda: TABLE)
    free_outputs: bool = False
    inner: tuple[str, ...] = ()  # globs over places of outputs whose widths are free all the same
    alike: tuple[frozenset[tuple[str, int]], ...] = ()  # places whose sizes a class makes equal, see siblings

    def run(self) -> None:
        wide = self._wide_integers()
        for ref in self.trace.state.values():
            labelled = ref.dtype.is_floating_point or ref.dtype.is_complex or ref.dtype is torch.bool or ref.id in wide
            self.axes[ref.id] = [self.labels.fresh(s) if labelled and s > 1 else None for s in ref.shape]
            if ref.kind == "parameter":
                self.weights[ref.id] = ref.name
        for op in self.trace.ops:
            self._apply(op)
        for call in self.trace.calls:
            self.where = f"{call.module} {call.source}".strip()
            shape_equations(self, call)
        self.where = ""
        if self.trace.decisions:
            couple_unread(self, self.trace)
        for left, right in self.trace.agreed:
            self.agree(left, right)
            self.agree(right, left)
        self._follow_alone()
        self._hold_read_numbers()
        limit_choices(self, self.trace)
        for ref, place in () if self.free_outputs else zip(self.trace.outputs, self.trace.places, strict=True):
            for axis in () if any(fnmatchcase(place, pattern) for pattern in self.inner) else self.of(ref):
                self.labels.freeze(axis, "it is an output of the model", place)
        if self.alike:
            couple_alike(self, self.trace, self.alike)

    def _hold_read_numbers(self) -> None:
        """Positions that Python reads, or that the model gives out, tie their axis to its order."""
        for ref in self.trace.reads:
            if ref.id in self.numbered:
                self.freeze(self.numbered[ref.id].axis, "forward reads a position along it")
        for ref, place in zip(self.trace.outputs, self.trace.places, strict=True):
            if ref.id in self.numbered:
                self.labels.freeze(self.numbered[ref.id].axis, "positions along it are an output of the model", place)

    def _follow_alone(self) -> None:
        """A tensor made in the size of another one that it never met, as one that is thrown away, follows it."""
        met = np.zeros(self.labels.count, dtype=bool)
        for left, right in self.labels.edges:
            met[left] = met[right] = True
        for grid in self.labels.grids:
            met[grid.cells] = True
            for axis in grid.axes:
                met[axis] = True
        for ref in self.trace.state.values():
            for held in self.of(ref):
                if held is not None:
                    met[held] = True
        for equation in list(self.equations):
            kind, *place = equation.expression
            if kind == "size" and equation.axis is not None and not met[equation.axis].any():
                source = self.axes[place[0]][place[1]] if place[0] in self.axes else None
                if source is not None and source.size == equation.size:
                    self.unite(equation.axis, source)

    def _wide_integers(self) -> set[int]:
        """Ids of integers that follow a width, by what the operators say that read them."""
        found: set[int] = set()
        for op in self.trace.ops:
            entry = self.table.get(packet(op))
            if entry is not None and entry.integers:
                found.update(op.args[at].id for at in entry.integers)
        return found

    def _apply(self, op: Op) -> None:
        self.where = op.where
        inputs = op.inputs
        if any(r.kind == "input" or r.id in self.dependent for r in inputs):
            self.dependent.update(r.id for r in op.outputs)
        found = self.table.rule(op)
        if found is None:
            self.refuse(op, packet(op))
            return
        self._keep_numbers(op)
        try:
            found(self, op)
        except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
            # a call of a form that the rule does not know: what it touches stays, and everything else shrinks
            logger.warning("the rule of %s does not know this call: %s [%s]", packet(op), error, op.where)
            self.refuse(op, packet(op))
            for out in op.outputs:
                self.axes.setdefault(out.id, [None] * len(out.shape))

    def _keep_numbers(self, op: Op) -> None:
        """Numbers that are positions along an axis, as far as the operator's own rule says nothing of them."""
        held = {ref.id: self.numbered[ref.id] for ref in op.inputs if ref.id in self.numbered}
        entry = self.table.get(packet(op))
        how = Positions.READ if entry is None else entry.positions
        if not held or how is Positions.RULED:
            return
        first = op.args[0] if how is Positions.KEPT and isinstance(op.args[0], Ref) else None
        for number, numbered in held.items():
            if first is not None and number == first.id:
                self.numbered |= {out.id: numbered for out in op.outputs}
            else:
                self.freeze(numbered.axis, f"{packet(op)} computes with positions along it")


_SHAPED_FIRST = {"view": 1, "reshape": 1, "expand": 1, "new_zeros": 1, "new_ones": 1, "new_empty": 1, "new_full": 1}
_FACTORIES = {"zeros": 0, "ones": 0, "empty": 0, "full": 0, "rand": 0, "randn": 0}


def shape_equations(c: Labelling, call: Call) -> None:
    """Equations of a call that names the sizes of its result."""
    if not call.outputs:
        return
    name, out = call.name, call.outputs[0]
    if name in _SHAPED_FIRST or name in _FACTORIES:
        start = _SHAPED_FIRST.get(name, 0)
        sizes = call.args[start:] or tuple(v for k, v in call.kwargs.items() if k in ("size", "shape"))
        if sizes and isinstance(sizes[0], (tuple, list)):
            sizes = tuple(sizes[0])
        if len(sizes) != len(out.shape):
            return
        for value, axis, size in zip(sizes, c.of(out), out.shape, strict=True):
            if isinstance(value, int) and value != -1 and not (name == "expand" and axis is None):
                c.equate(value, axis, size)
    elif name == "unflatten":
        dim, sizes = call.argument(1, "dim"), call.argument(2, "sizes")
        if isinstance(dim, int) and isinstance(sizes, (tuple, list)):
            dim = dim % (len(out.shape) - len(sizes) + 1)
            for k, value in enumerate(sizes):
                if value != -1:
                    c.equate(value, c.of(out)[dim + k], out.shape[dim + k])
    elif name == "one_hot":
        c.equate(call.argument(1, "num_classes"), c.of(out)[-1], out.shape[-1])
    elif name == "rms_norm":  # split into its parts on meta, where no operator shows the normalised shape
        sizes = call.argument(1, "normalized_shape")
        if isinstance(sizes, (tuple, list)):
            rank = len(out.shape) - len(sizes)
            for value, axis, size in zip(sizes, c.of(out)[rank:], out.shape[rank:], strict=True):
                c.equate(value, axis, size)
