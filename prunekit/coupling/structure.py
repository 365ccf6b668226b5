"""What prunekit knows about a model after tracing and coupling it; everything later reads only this."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from prunekit.coupling.assembly import Assembly, assemble
from prunekit.coupling.axis_rows import Rows
from prunekit.coupling.blocks import Depth, find_depth, is_inside
from prunekit.coupling.branches import find_branches
from prunekit.coupling.cost import Cost, CostTerm, by_module, measure_ops, terms
from prunekit.coupling.coupler import Coupler
from prunekit.coupling.expert_lists import find_expert_lists, terms_without
from prunekit.coupling.fates import Fates, resolve
from prunekit.coupling.groups import Frozen, Group, Member, Tap, Tie
from prunekit.coupling.lengths import Lengths
from prunekit.coupling.systems import Systems
from prunekit.coupling.taps import find_taps
from prunekit.coupling.ties import find_ties
from prunekit.graph.nodes import Ref, Trace, packet
from prunekit.inputs import Inputs
from prunekit.labels.labelling import Equation
from prunekit.labels.vectors import Axis
from prunekit.modules.containers import place
from prunekit.operators import TABLE, Operator, Table
from prunekit.roles import ROLES, Role


@dataclass(frozen=True, eq=False)
class Structure:
    """The groups of a model, what is frozen and why, and how every size follows from what is kept.

    Attributes:
        groups: every width that can shrink.
        frozen: widths that cannot, with the reason.
        ties: groups that must keep equal counts.
        inputs: the example inputs of the trace.
        unknown: operators without a coupling rule that touched a prunable axis -> where.
    """

    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]
    ties: tuple[Tie, ...]
    inputs: Inputs
    unknown: Mapping[str, str]
    trace: Trace
    coupler: Coupler
    fates: Fates
    assembly: Assembly

    @property
    def brought(self) -> tuple[Operator, ...]:
        """What was known of operators beyond prunekit's own table."""
        return self.coupler.table.brought

    @property
    def free_outputs(self) -> bool:
        """Whether widths of what the model returns may shrink."""
        return self.coupler.free_outputs

    @property
    def tables(self) -> tuple[str, ...]:
        """The attributes of ``trace.tables`` by their dotted names."""
        return tuple(place(path, name) for path, name in self.trace.tables)

    @property
    def returns_free(self) -> bool:
        """Whether anything that it returns may shrink."""
        return self.coupler.free_outputs or bool(self.coupler.inner)

    def in_outputs(self, name: str) -> tuple[Member, ...]:
        """Axes of outputs that a group runs through: ``tensor`` is the output's number, in the order of the trace."""
        number = self.numbers[name]
        found = []
        for output, ref in enumerate(self.trace.outputs):
            for at, axis in enumerate(self.coupler.of(ref)):
                if axis is None:
                    continue
                owners = self.fates.owners[self.fates.fate[axis]]
                units = np.append(self.assembly.unit_of, -1)
                mine = np.append(self.assembly.group_of, -1)[owners] == number
                unit_of = np.where(mine, units[owners], -1).max(axis=1)
                if (unit_of >= 0).any():
                    found.append(Member(str(output), at, torch.from_numpy(unit_of.astype(np.int64))))
        return tuple(found)

    def group(self, name: str) -> Group:
        return self.groups[self.numbers[name]] if name in self.numbers else self.depth.group(name)

    @cached_property
    def depth(self) -> Depth:
        """Whole blocks and branches that may go; asked for by their role, never by default, and looked for then."""
        trace, inner = self.trace, self.coupler.inner
        own = [place for place in trace.places if any(fnmatchcase(place, pattern) for pattern in inner)]
        blocks = find_depth(trace)
        branches, left = find_branches(trace, self.coupler, own, [group.name for group in blocks.groups])
        experts, unled = find_expert_lists(trace, [group.block for group in blocks.groups])
        entries = [path for group in experts for path in group.places]
        stay = [each for each in (*blocks.frozen, *left, *unled) if each.name not in entries]
        return Depth((*blocks.groups, *branches, *experts), tuple(stay))

    def gone(self, kept: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Paths of the modules that are removed when each named group keeps the given units."""
        return self.depth.gone(kept) if self._of_depth(kept) else ()

    def _of_depth(self, kept: Mapping[str, Tensor]) -> Collection[str]:
        """The names of ``kept`` that are those of blocks and branches; where all are widths, none is looked for."""
        return self._deep & kept.keys() if kept.keys() - self.numbers.keys() else ()

    @cached_property
    def rows(self) -> Rows:
        """The kinds of axes, and what each group owns of them."""
        own = [e.axis for e in self.equations]
        return Rows.of([*self.coupler.axes.values(), own], self.fates, self.assembly)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The place of each group among all, by its name."""
        return {group.name: number for number, group in enumerate(self.groups)}

    @cached_property
    def systems(self) -> Systems:
        """The equations, as far as they hang together."""
        return Systems.of(self.coupler, self.rows)

    def lengths(self, kept: Mapping[str, Tensor]) -> Lengths:
        """How long every axis is when each named group keeps the given units."""
        deep = self._of_depth(kept)
        widths = {name: units for name, units in kept.items() if name not in deep}
        return Lengths(self.rows, self.numbers, widths)

    def overlaps(self) -> dict[str, set[str]]:
        """For each group the groups that share coordinates with it, such as heads and positions within a head."""
        found: dict[str, set[str]] = {}
        owners = self.fates.owners[(self.fates.owners >= 0).sum(axis=1) > 1]
        if not owners.size:
            return found
        groups = np.append(self.assembly.group_of, -1)[owners]
        other = np.append(True, (groups[1:] != groups[:-1]).any(axis=1))  # coordinates of an axis lie side by side
        for row in set(map(tuple, groups[other].tolist())):
            names = [self.groups[g].name for g in row if g >= 0]
            for name in names:
                found.setdefault(name, set()).update(n for n in names if n != name)
        return found

    def shapes(self, kept: Mapping[str, Tensor]) -> dict[int, tuple[int, ...]]:
        """Shape by id of every traced tensor that can shrink when each named group keeps the given units."""
        lengths = self.lengths(kept)
        return {
            number: tuple(map(lengths.of, axes, self.trace.sizes[number]))
            for number, axes in self.coupler.axes.items()
            if any(axis is not None for axis in axes)
        }

    @property
    def equations(self) -> list[Equation]:
        return self.coupler.equations

    def cost(self, kept: Mapping[str, Tensor] | None = None) -> Cost:
        """Parameters, multiply-adds and bytes when each named group keeps the given units; everything by default."""
        return measure_ops(*self._left(kept)) if kept else self._whole_cost

    def layers(self, kept: Mapping[str, Tensor] | None = None) -> dict[str, tuple[int, int]]:
        """(parameters, multiply-adds) by module, as ``cost`` counts them."""
        return by_module(*self._left(kept or {}))

    def _left(self, kept: Mapping[str, Tensor]) -> tuple[tuple[CostTerm, ...], dict[int, tuple[int, ...]]]:
        """Terms of what is left when blocks are gone, and shapes that change when widths are."""
        deep = self._of_depth(kept)
        shapes = self.shapes(kept) if kept.keys() - deep else {}
        return self.terms_left(kept, self.gone(kept)), shapes

    def terms_left(self, kept: Mapping[str, Tensor], gone: Sequence[str]) -> tuple[CostTerm, ...]:
        """What the cost is a sum of without the modules ``gone``, when lists of experts keep the given units."""
        left: Iterable[CostTerm] = self.terms
        for group in (self.depth.group(name) for name in self._of_depth(kept)):
            if group.routes:
                left = terms_without(group, kept[group.name].tolist(), left, self.trace, self._is_bound)
        return tuple(term for term in left if not is_inside(term.module, gone)) if gone else self.terms

    def _is_bound(self, ref: Ref, axis: int) -> bool:
        """Whether an axis of a tensor keeps its length whatever widths go."""
        axes = self.coupler.axes.get(ref.id)
        vector = None if axes is None else axes[axis]
        return vector is None or not self.rows.all[self.rows.number(vector)].groups

    @cached_property
    def _deep(self) -> frozenset[str]:
        return frozenset(group.name for group in self.depth.groups)

    @cached_property
    def _whole_cost(self) -> Cost:
        return measure_ops(self.terms, {})

    @cached_property
    def terms(self) -> tuple[CostTerm, ...]:
        """What the cost is a sum of."""
        return terms(self.trace, self.coupler)

    @cached_property
    def kinds(self) -> dict[str, str]:
        """For each parameter and buffer the operators that read it, e.g. ``aten.convolution``."""
        found: dict[str, set[str]] = {}
        names = {ref.id: name for name, ref in self.trace.state.items()} | self.coupler.weights
        for op in self.trace.ops:
            for ref in op.inputs:
                if ref.id in names:
                    found.setdefault(names[ref.id], set()).add(packet(op))
        return {name: " ".join(sorted(ops)) for name, ops in found.items()}

    @cached_property
    def readers(self) -> dict[str, frozenset[str]]:
        """For each group the tensors of layers that read it and do not write it: a layer writes what it gives out."""
        writers: dict[str, set[int]] = {}
        for call in self.trace.modules:
            if call.is_leaf:
                axes = [axis for ref in call.outputs for axis in self.coupler.of(ref) if axis is not None]
                writers.setdefault(call.module, set()).update(g for axis in axes for g in self._groups_on(axis))
        found = {}
        for number, group in enumerate(self.groups):
            layers = ((member.tensor, member.tensor.rpartition(".")[0]) for member in group.members)
            found[group.name] = frozenset(t for t, path in layers if path in writers and number not in writers[path])
        return found

    def _groups_on(self, axis: Axis) -> set[int]:
        owners = self.fates.owners[self.fates.fate[axis]]
        return set(np.unique(np.append(self.assembly.group_of, -1)[owners]).tolist()) - {-1}

    def taps(self, roles: Collection[str], *, where: Literal["written", "read"] = "written") -> tuple[Tap, ...]:
        """Where hooks read the features of these roles: residual streams as inputs of modules, hidden ones as outputs.

        With ``where="read"`` hidden ones are taken as they go into the module where they end: after the activation.
        """
        wanted = {i for i, g in enumerate(self.groups) if g.role in roles}
        return find_taps(self.trace, self.coupler, self.fates, self.assembly, self.groups, wanted, where)


def couple(
    trace: Trace,
    inputs: Inputs,
    table: Table = TABLE,
    roles: Sequence[Role] = ROLES,
    *,
    free_outputs: bool = False,
    inner: tuple[str, ...] = (),
    alike: tuple[frozenset[tuple[str, int]], ...] = (),
) -> Structure:
    """Groups of units that live and die together, found from one trace by the rules of ``table``.

    ``free_outputs`` lets widths of what the model returns shrink too, ``inner`` those of the outputs whose places it
    matches. ``alike`` are places of parameters whose sizes the model's class makes equal: one that forward does not
    read goes with those that it does.
    """
    coupler = Coupler(trace=trace, table=table, free_outputs=free_outputs, inner=inner, alike=alike)
    coupler.run()
    fates = resolve(coupler.labels)
    fates = find_ties(coupler, fates).settle(coupler, fates)
    assembly = assemble(coupler, fates, roles)
    ties = find_ties(coupler, fates).named(fates, assembly)
    return Structure(assembly.groups, assembly.frozen, ties, inputs, coupler.unknown, trace, coupler, fates, assembly)
