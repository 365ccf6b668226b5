"""Depth: entries of lists and sequences of modules that a model could do without, found in one trace."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from prunekit.coupling.groups import Frozen, Group, Member
from prunekit.graph.nodes import ModuleCall, Op, Ref, Trace, packet
from prunekit.modules.containers import place
from prunekit.roles import BLOCK

WHOLE_MODEL = "model"  # the name of the units of a model that is itself a sequence
_ADDS = ("aten.add", "aten.sub", "aten.addcmul", "aten.lerp")


@dataclass(frozen=True)
class Depth:
    """Groups whose units are whole residual blocks, a group a container, or residual branches; and what cannot go.

    A block hands on what it is given, changed: its first output has the shape of a tensor that it gets, and somewhere
    in it a sum joins the two. Whether the model follows without it, only a run tells (``prunekit/depth``).
    """

    groups: tuple[Group, ...] = ()
    frozen: tuple[Frozen, ...] = ()

    @property
    def blocks(self) -> tuple[Group, ...]:
        """Those whose units are whole blocks."""
        return tuple(group for group in self.groups if not group.branches)

    def group(self, name: str) -> Group:
        """The group of that name. Raises KeyError."""
        return {group.name: group for group in self.groups}[name]

    def gone(self, kept: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
        """Paths of the modules that are removed when each named group keeps the given units."""
        found: list[str] = []
        for group in self.groups:
            if group.name in kept:
                left = set(kept[group.name].tolist())
                gone = [unit for unit in range(group.size) if unit not in left]
                found += [each.module for unit in gone if group.branches for each in group.branches[unit].modules]
                found += [group.places[unit] for unit in gone if not group.branches]
        return tuple(found)


def is_inside(path: str, places: Sequence[str]) -> bool:
    """Whether a module or tensor lies in one of the modules ``places``."""
    return any(path == each or path.startswith(f"{each}.") for each in places)


def find_depth(trace: Trace) -> Depth:
    """The blocks of every container; of blocks inside blocks the inner ones."""
    seen = _Seen.of(trace)
    units: dict[str, list[str]] = {}
    frozen: dict[str, Frozen] = {}
    for container, names in trace.containers.items():
        for path in (place(container, name) for name in names):
            if not seen.tensors.get(path) or not seen.has_parts(path):
                continue
            reason, where = seen.obstacle(path)
            if reason:
                frozen[path] = Frozen(path, 1, reason, where)
            else:
                units.setdefault(container, []).append(path)
    units = _one_level(units, seen)
    every = [path for paths in units.values() for path in paths]
    groups = tuple(_as_group(container, tuple(paths), seen) for container, paths in units.items())
    shown = [each for path, each in frozen.items() if _is_worth_saying(path, trace, units, every)]
    return Depth(groups, tuple(shown))


def _one_level(units: Mapping[str, list[str]], seen: _Seen) -> dict[str, list[str]]:
    """Of blocks inside blocks either the inner or the outer ones: the inner where they are like one another, as the
    blocks of a stage are and the parts of a block are not."""
    left = {container: list(paths) for container, paths in units.items()}
    for container in units:
        outer = [path for paths in units.values() for path in paths if is_inside(container, [path])]
        if not outer:
            continue
        footprints = [seen.footprint(path) for path in units[container]]
        inner_wins = len(set(footprints)) < len(footprints)
        gone = set(outer) if inner_wins else set(units[container])
        left = {name: [path for path in paths if path not in gone] for name, paths in left.items()}
    return {container: paths for container, paths in left.items() if paths}


def _is_worth_saying(path: str, trace: Trace, units: Mapping[str, list[str]], every: Sequence[str]) -> bool:
    """Layers inside a block are no blocks; nobody asks why they are none."""
    if is_inside(path, every) or any(is_inside(unit, [path]) for unit in every):
        return False
    container = path.rpartition(".")[0]
    entries = (place(at, name) for at, names in trace.containers.items() for name in names)
    return container in units or not any(is_inside(container, [entry]) for entry in entries)


def _as_group(container: str, places: tuple[str, ...], seen: _Seen) -> Group:
    members = [
        Member(ref.name, 0, torch.full((ref.shape[0],), unit, dtype=torch.int64, device="cpu"), ref.kind == "buffer")
        for unit, path in enumerate(places)
        for ref in seen.tensors[path]
        if ref.shape
    ]
    return Group(container or WHOLE_MODEL, BLOCK, len(places), tuple(members), block=container, places=places)


@dataclass(frozen=True, eq=False)
class _Seen:
    """What a trace shows of each entry: its calls, its operators and its tensors."""

    calls: Mapping[str, list[ModuleCall]]
    ops: Mapping[str, list[Op]]
    tensors: Mapping[str, list[Ref]]
    readers: Mapping[int, set[str]]  # of every state tensor: the modules that read it
    opaque: Sequence[str]

    @classmethod
    def of(cls, trace: Trace) -> _Seen:
        entries = {place(container, name) for container, names in trace.containers.items() for name in names}
        calls: dict[str, list[ModuleCall]] = {}
        for call in trace.modules:
            for path in (path for path in _path_and_above(call.module) if path in entries):
                calls.setdefault(path, []).append(call)
        ops: dict[str, list[Op]] = {}
        readers: dict[int, set[str]] = {}
        state = {ref.id for ref in trace.state.values()}
        for op in trace.ops:
            for path in (path for path in _path_and_above(op.module) if path in entries):
                ops.setdefault(path, []).append(op)
            for ref in op.inputs:
                if ref.id in state:
                    readers.setdefault(ref.id, set()).add(op.module)
        tensors: dict[str, list[Ref]] = {}
        for ref in trace.state.values():
            for path in (path for path in _path_and_above(ref.name) if path in entries):
                tensors.setdefault(path, []).append(ref)
        return cls(calls, ops, tensors, readers, tuple(trace.opaque))

    def footprint(self, path: str) -> tuple[str, ...]:
        """The names of its tensors: what two blocks of one kind share."""
        return tuple(sorted(ref.name.removeprefix(f"{path}.") for ref in self.tensors[path]))

    def has_parts(self, path: str) -> bool:
        """Whether it is more than one layer: a single one is a part of something, and has nothing beside it."""
        own = [call for call in self.calls.get(path, ()) if call.module == path]
        return not any(call.is_leaf for call in own)

    def obstacle(self, path: str) -> tuple[str, str]:
        """Why the entry cannot go, and where that is seen; two empty strings where nothing in the trace says so."""
        own = [call for call in self.calls.get(path, ()) if call.module == path]
        if not own:
            called = bool(self.calls.get(path) or self.ops.get(path))
            reason = "its parts are called one by one, never itself" if called else "these inputs do not run it"
            return reason, ""
        if len(own) > 1:
            return f"it runs {len(own)} times in one pass", ""
        for ref in self.tensors[path]:
            others = sorted(at for at in self.readers.get(ref.id, ()) if not is_inside(at, [path]))
            if others:
                return f"{ref.name} is read outside it too", others[0]
        return _carries_on(own[0], self.ops.get(path, ()), is_opaque=path in self.opaque)


def _carries_on(call: ModuleCall, ops: Sequence[Op], *, is_opaque: bool) -> tuple[str, str]:
    if not call.outputs or not call.given:
        return "it gives or takes no tensor", ""
    main = call.outputs[0]
    stream = [ref for ref in call.given if ref.shape == main.shape and ref.dtype == main.dtype]
    if not stream:
        given = max(call.given, key=lambda ref: len(ref.shape))
        return f"it makes {main.shape} of {given.shape}: nothing of that shape could be handed on in its place", ""
    if is_opaque:
        return "it decides by values, and is followed from the outside only", ""
    if not any(_adds_back(ops, ref) for ref in stream):
        return "no sum joins what it is given to what it makes of it: there is no way past it", ""
    return "", ""


def _adds_back(ops: Sequence[Op], stream: Ref) -> bool:
    """Whether a sum has two terms that both come from ``stream``, in its size."""
    size, known = _elements_of(stream), {stream.id}
    for op in ops:
        from_stream = [ref for ref in op.inputs if ref.id in known]
        if not from_stream:
            continue
        terms = {ref.id for ref in from_stream if _elements_of(ref) == size}
        if packet(op) in _ADDS and len(terms) > 1:
            return True
        known |= {ref.id for ref in op.outputs}
    return False


def _elements_of(ref: Ref) -> int:
    return math.prod(ref.shape)


def _path_and_above(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]
