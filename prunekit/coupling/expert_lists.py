"""Experts that are entries of a list of modules, and the linear layer that routes to them, found in one trace."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch

from prunekit.coupling.blocks import is_inside
from prunekit.coupling.cost import CostTerm
from prunekit.coupling.groups import Frozen, Group, Member
from prunekit.graph.nodes import Ref, Trace, packet
from prunekit.modules.containers import place
from prunekit.modules.unrouting import Route
from prunekit.roles import EXPERT_IN_LIST


def find_expert_lists(trace: Trace, blocks: Collection[str]) -> tuple[tuple[Group, ...], tuple[Frozen, ...]]:
    """A group for every list whose entries are alike, beside one linear layer with a row for each and a top-k.

    ``blocks`` are containers whose entries are blocks: they are none. Also lists that look so and cannot be followed,
    with the reason. Whether that layer chooses among the entries is for a run to tell.
    """
    groups, frozen = [], []
    for container, names in trace.containers.items():
        entries = [place(container, name) for name in names]
        if container in blocks or len(names) < 2 or not _entries_alike(entries, trace):
            continue
        owner = container.rpartition(".")[0]
        chosen = list(_chosen_at_once(owner, len(names), trace))
        if not chosen:
            continue
        routers = list(_rows_for(len(names), owner, entries, trace))
        if len(routers) != 1:
            reason = "no linear layer beside it" if not routers else f"{' and '.join(routers)} each"
            frozen.append(Frozen(container, len(names), f"{reason} has one row for each of its entries to choose by"))
            continue
        found = _set_of_experts(container, tuple(entries), routers[0], max(chosen), owner, trace)
        groups.append(found)
    return tuple(groups), tuple(frozen)


def _is_in(path: str, owner: str) -> bool:
    return not owner or is_inside(path, [owner])


def _entries_alike(entries: Sequence[str], trace: Trace) -> bool:
    """Whether the entries hold tensors of the same names and shapes, and some."""
    shapes = [
        {name.removeprefix(f"{path}."): ref.shape for name, ref in trace.state.items() if name.startswith(f"{path}.")}
        for path in entries
    ]
    return bool(shapes[0]) and all(each == shapes[0] for each in shapes)


def _chosen_at_once(owner: str, count: int, trace: Trace) -> Iterator[int]:
    """How many are chosen, by every top-k over so many values in the module that owns the list."""
    for op in trace.ops:
        if packet(op) == "aten.topk" and _is_in(op.module, owner):
            base, k = op.args[0], op.args[1]
            if isinstance(base, Ref) and base.shape and base.shape[-1] == count:
                yield int(k)


def _rows_for(count: int, owner: str, entries: Sequence[str], trace: Trace) -> Iterator[str]:
    """Linear layers in the module that owns the list, and not in its entries, that give so many values."""
    for path in dict.fromkeys(call.module for call in trace.modules if call.is_leaf):
        weight = trace.state.get(f"{path}.weight")
        if weight is None or len(weight.shape) != 2 or weight.shape[0] != count:
            continue
        if _is_in(path, owner) and not is_inside(path, entries):
            yield path


def _set_of_experts(
    container: str, entries: tuple[str, ...], router: str, least: int, owner: str, trace: Trace
) -> Group:
    size = len(entries)
    members = [
        Member(ref.name, 0, torch.full((ref.shape[0],), unit, dtype=torch.int64), ref.kind == "buffer")
        for unit, path in enumerate(entries)
        for name, ref in trace.state.items()
        if ref.shape and name.startswith(f"{path}.")
    ]
    own = (f"{router}.weight", f"{router}.bias")
    beside = tuple(
        name
        for name, ref in trace.state.items()
        if ref.shape == (size,) and _is_in(name, owner) and not is_inside(name, entries) and name not in own
    )
    routes = tuple(Route(router, unit, beside) for unit in range(size))
    return Group(
        container, EXPERT_IN_LIST, size, tuple(members), block=container, least=least, places=entries, routes=routes
    )


def routers_narrowed(
    group: Group, left: int, terms: Sequence[CostTerm], shapes: Mapping[int, tuple[int, ...]]
) -> dict[int, tuple[int, ...]]:
    """Shapes of the tensors of a router, and of what it multiplies, when so many experts are left.

    Of every product one axis of as many places as there are experts shrinks: which of several is all one to a product.
    """
    route = group.routes[0]
    found: dict[int, tuple[int, ...]] = {}
    for term in terms:
        if term.module != route.router and not any(ref.name in route.beside for ref, _ in term.axes):
            continue
        for ref, axis in term.axes:
            shape = found.get(ref.id, shapes.get(ref.id, ref.shape))
            if ref.shape[axis] == group.size:
                found[ref.id] = (*shape[:axis], left, *shape[axis + 1 :])
                break
    return found
