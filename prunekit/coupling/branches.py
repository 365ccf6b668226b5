"""Residual branches: values that are added back onto the stream they were computed from, found in one trace."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from prunekit.coupling.coupler import Coupler
from prunekit.coupling.flow import Flow, Value
from prunekit.coupling.groups import Branch, Frozen, Group, Member
from prunekit.coupling.module_facts import Facts
from prunekit.graph.nodes import Op, Trace, packet
from prunekit.modules.silencing import Addend


@dataclass(frozen=True, eq=False)
class _Sum:
    """A sum of terms: of each the value, the operator that adds it and its place there; ``op`` adds the last ones."""

    op: int
    terms: tuple[tuple[Value, int, int], ...]


@dataclass(frozen=True, eq=False)
class _Found:
    """A branch in a trace: the operators between stream and sum, and those that work for it alone."""

    term: tuple[Value, int, int]
    sum: int
    between: frozenset[int]
    alone: frozenset[int]


def find_branches(
    trace: Trace, coupler: Coupler, own: Sequence[str], taken: Sequence[str]
) -> tuple[tuple[Group, ...], tuple[Frozen, ...]]:
    """Groups of branches, those at one place of the architecture together, and branches that cannot go, with reasons.

    ``own`` are places of outputs that do not count, such as a cache, ``taken`` names of other groups. Of branches in
    one another the inner ones count.
    """
    seen = Facts(trace, coupler, Flow.of(trace, own))
    every = [found for added in _whole_sums(seen) for found in _branches_of(added, seen.flow)]
    sums = {found.sum for found in every}
    # what leads through other branches to a sum, as a bias of attention scores that all layers share, is no stream
    every = [found for found in every if not sums & (found.between - found.alone)]
    sums = {found.sum for found in every if seen.has_weights(found.between)}
    branches: dict[str, Branch] = {}
    frozen: dict[str, Frozen] = {}
    for found in every:
        if not seen.has_weights(found.between) or sums & found.between:
            continue
        made = _as_branch(found, seen)
        if isinstance(made, Frozen):
            frozen.setdefault(made.name, made)
        elif made.place not in branches:
            branches[made.place] = made
    return tuple(_grouped(branches.values(), trace, taken)), tuple(frozen.values())


def _whole_sums(seen: Facts) -> Iterator[_Sum]:
    """Sums of two tensors of one shape that are not terms of another such sum in the same module."""
    inner: set[int] = set()
    for number in reversed(seen.sums):
        if number in inner:
            continue
        terms = list(_terms(number, seen, inner))
        yield _Sum(number, tuple(terms))


def _terms(number: int, seen: Facts, inner: set[int]) -> Iterator[tuple[Value, int, int]]:
    flow, op = seen.flow, seen.flow.ops[number]
    for operand in (0, 1):
        value = _value_read(flow.reads[number], op, operand)
        by = flow.maker.get(value)
        again = by is not None and by in seen.numbers and flow.ops[by].module == op.module and value not in flow.kept
        if by is not None and again and flow.readers[value] == [number]:
            inner.add(by)
            yield from _terms(by, seen, inner)
        else:
            yield value, number, operand


def _value_read(reads: Sequence[Value], op: Op, operand: int) -> Value:
    return next(value for value in reads if value[0] == op.args[operand].id)


def _branches_of(added: _Sum, flow: Flow) -> Iterator[_Found]:
    """The terms that are computed from another one; a term that others come from is the stream."""
    for term in added.terms:
        value, at, operand = term
        by = flow.maker.get(value)
        is_taken_from = operand == 0 and "sub" in packet(flow.ops[at])
        for other in added.terms:
            if other is term or by is None or is_taken_from:
                continue
            source = flow.root(other[0])
            onward = flow.onward(source, by)
            if by in onward and source != flow.root(value):
                alone = flow.only_for(value, at)
                backward = _leading_to(value, onward, flow)
                yield _Found(term, added.op, frozenset(backward), frozenset(alone))
                break


def _leading_to(value: Value, onward: set[int], flow: Flow) -> set[int]:
    """Of the operators that a stream leads to those that lead to ``value``."""
    found: set[int] = set()
    waiting = [value]
    while waiting:
        number = flow.maker.get(waiting.pop())
        if number is not None and number in onward and number not in found:
            found.add(number)
            waiting += flow.reads[number]
    return found


def _as_branch(found: _Found, seen: Facts) -> Branch | Frozen:
    """The branch with the modules that go, or why none can."""
    _, at, operand = found.term
    op = seen.flow.ops[at]
    paths = [seen.flow.ops[number].module for number in found.between]
    home = _shared_path([op.module, *paths])
    name = home or op.module or "model"
    where = op.where
    if seen.calls_of(op.module) > 1:
        return Frozen(name, 1, f"a residual branch in it runs {seen.calls_of(op.module)} times in one pass", where)
    if not found.alone:
        return Frozen(name, 1, "what a residual branch in it adds is read elsewhere too", where)
    modules = tuple(seen.removable(found.alone, home))
    if not modules:
        reason = "a residual branch in it is computed by forward itself: no module of it can go"
        return Frozen(name, 1, reason, where)
    for each in modules:
        if reader := seen.read_outside(each.module):
            return Frozen(each.module, 1, f"a weight of this part of a residual branch is read by {reader} too", where)
    ordinal = seen.ordinals[at], seen.ordinals[found.sum]
    term = Addend(op.module, ordinal[0], operand, ordinal[1])
    outputs = {ref.id for number in found.alone for ref in seen.flow.ops[number].outputs}
    kept = tuple(at for at, ref in zip(seen.trace.places, seen.trace.outputs, strict=True) if ref.id in outputs)
    weighty = [each.module for each in modules if seen.weighs(each.module)]
    return Branch((weighty or [modules[-1].module])[-1], seen.role(found.between), term, modules, kept)


def _shared_path(paths: Sequence[str]) -> str:
    parts = [path.split(".") if path else [] for path in paths]
    shared: list[str] = []
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return ".".join(shared)


def _grouped(branches: Iterable[Branch], trace: Trace, taken: Sequence[str]) -> Iterator[Group]:
    """One group for each place in the architecture: paths that differ in numbers alone."""
    kinds: dict[tuple[str, str], list[Branch]] = {}
    order = {call.module: at for at, call in enumerate(trace.modules)}
    for branch in sorted(branches, key=lambda each: order.get(each.place, 0)):
        kinds.setdefault((re.sub(r"\d+", "*", branch.place), str(branch.role)), []).append(branch)
    patterns = [*(pattern for pattern, _ in kinds), *taken]
    for (pattern, role), each in kinds.items():
        members = [
            Member(
                ref.name, 0, torch.full((ref.shape[0],), unit, dtype=torch.int64, device="cpu"), ref.kind == "buffer"
            )
            for unit, branch in enumerate(each)
            for ref in trace.state.values()
            if ref.shape and any(ref.name.startswith(f"{gone.module}.") for gone in branch.modules)
        ]
        name = pattern if patterns.count(pattern) == 1 else f"{pattern} {role}"  # also of one: it may be what is left
        places = tuple(branch.place for branch in each)
        yield Group(name, each[0].role, len(each), tuple(members), places=places, branches=tuple(each))
