"""Experts that are entries of a list of modules, and the linear layer that routes to them, found in one trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from prunekit.coupling.blocks import is_inside
from prunekit.coupling.cost import CostTerm
from prunekit.coupling.groups import Frozen, Group, Member
from prunekit.graph.nodes import Op, Ref, Trace, packet
from prunekit.modules.containers import place
from prunekit.modules.unrouting import Route
from prunekit.roles import EXPERT_IN_LIST


def find_expert_lists(trace: Trace, blocks: Collection[str]) -> tuple[tuple[Group, ...], tuple[Frozen, ...]]:
    """A group for every list whose entries are alike, beside one linear layer with a row for each and a choice.

    ``blocks`` are containers whose entries are blocks: they are none. Also lists that look so and cannot be followed,
    with the reason. Whether that layer chooses among the entries is for a run to tell.
    """
    groups, frozen = [], []
    choices = [op for op in trace.ops if packet(op) in ("aten.topk", "aten.argmax")]
    lists = {at: [place(at, name) for name in names] for at, names in trace.containers.items() if at not in blocks}
    tensors = _held_by_entry({path for entries in lists.values() for path in entries}, trace) if choices else {}
    for container, entries in lists.items():
        if len(entries) < 2 or not _entries_alike(entries, tensors):
            continue
        owner, size = container.rpartition(".")[0], len(entries)
        chosen = list(_chosen_at_once(owner, size, choices))
        if not chosen:
            continue
        routers = list(_rows_for(size, owner, entries, trace))
        if len(routers) == 1:
            groups.append(_set_of_experts(container, entries, routers[0], max(chosen), tensors, trace))
            continue
        reason = f"{' and '.join(routers)} each have" if routers else "no linear layer beside it has"
        frozen.append(Frozen(container, size, f"{reason} one row for each of its entries to choose by"))
    return tuple(groups), tuple(frozen)


def _is_in(path: str, owner: str) -> bool:
    return not owner or is_inside(path, [owner])


def _held_by_entry(entries: Collection[str], trace: Trace) -> dict[str, dict[str, Ref]]:
    """The tensors in each entry, by their name within it."""
    found: dict[str, dict[str, Ref]] = {}
    for name, ref in trace.state.items():
        path = name
        while path := path.rpartition(".")[0]:
            if path in entries:
                found.setdefault(path, {})[name[len(path) + 1 :]] = ref
    return found


def _entries_alike(entries: Sequence[str], tensors: Mapping[str, Mapping[str, Ref]]) -> bool:
    """Whether the entries hold tensors of the same names and shapes, and some."""
    shapes = [{name: ref.shape for name, ref in tensors.get(path, {}).items()} for path in entries]
    return bool(shapes[0]) and all(each == shapes[0] for each in shapes)


def _chosen_at_once(owner: str, count: int, choices: Sequence[Op]) -> Iterator[int]:
    """How many are chosen, by every top-k over so many values in the module that owns the list, and by each argmax."""
    found = 0
    for op in choices:
        base = op.args[0]
        if _is_in(op.module, owner) and isinstance(base, Ref) and base.shape and base.shape[-1] == count:
            found += packet(op) == "aten.argmax"  # one after the other, each without what those before it chose
            yield int(op.args[1]) if packet(op) == "aten.topk" else found


def _rows_for(count: int, owner: str, entries: Sequence[str], trace: Trace) -> Iterator[str]:
    """Linear layers in the module that owns the list, and not in its entries, that give so many values."""
    for path in dict.fromkeys(call.module for call in trace.modules if call.is_leaf and _is_in(call.module, owner)):
        weight = trace.state.get(f"{path}.weight")
        is_row = weight is not None and len(weight.shape) == 2 and weight.shape[0] == count
        if is_row and not is_inside(path, entries):
            yield path


def _set_of_experts(
    container: str,
    entries: Sequence[str],
    router: str,
    least: int,
    tensors: Mapping[str, Mapping[str, Ref]],
    trace: Trace,
) -> Group:
    size, owner = len(entries), container.rpartition(".")[0]
    members = [
        Member(ref.name, 0, torch.full((ref.shape[0],), unit, dtype=torch.int64, device="cpu"), ref.kind == "buffer")
        for unit, path in enumerate(entries)
        for ref in tensors[path].values()
        if ref.shape
    ]
    own = (f"{router}.weight", f"{router}.bias")
    rows = (name for name, ref in trace.state.items() if ref.shape == (size,) and name not in own)
    beside = tuple(name for name in rows if _is_in(name, owner) and not is_inside(name, entries))
    routes = tuple(Route(router, unit, beside) for unit in range(size))
    known: dict[str, Any] = {"least": least, "places": tuple(entries), "routes": routes}
    return Group(container, EXPERT_IN_LIST, size, tuple(members), block=container, **known)


def terms_without(
    group: Group, kept: Sequence[int], terms: Iterable[CostTerm], trace: Trace, is_bound: Callable[[Ref, int], bool]
) -> Iterator[CostTerm]:
    """``terms`` when of a list of experts these are left: the router has a row for each, and they do all the work.

    Of what the router holds and multiplies one axis of as many places as there are experts shrinks, of several one
    that ``is_bound`` to its length. Where every token is given to as many experts as are chosen, those that are left
    take the tokens of those that go; where every expert gets every token, what goes spares its work.
    """
    route, places = group.routes[0], group.places
    gone = [path for unit, path in enumerate(places) if unit not in kept]
    by_token = _rows_given(trace, places) == group.least * _rows_given(trace, [route.router])
    heirs = {path: places[kept[number % len(kept)]] for number, path in enumerate(gone)}
    for term in terms:
        inside = next((path for path in gone if is_inside(term.module, [path])), None)
        if inside is not None:
            if by_token and "macs" in term.counts:
                yield replace(term, module=heirs[inside] + term.module[len(inside) :])
        elif term.module == route.router or any(ref.name in route.beside for ref, _ in term.axes):
            yield _shrunk(term, group.size, len(kept), is_bound)
        else:
            yield term


def _rows_given(trace: Trace, paths: Sequence[str]) -> int:
    """How many rows of features these modules are given in one pass, all calls together."""
    calls = [call for call in trace.modules if call.module in paths and call.given]
    return sum(math.prod(call.given[0].shape[:-1]) for call in calls)


def _shrunk(term: CostTerm, size: int, left: int, is_bound: Callable[[Ref, int], bool]) -> CostTerm:
    """The term with ``left`` in the place of an axis of ``size``."""
    fitting = [number for number, (ref, axis) in enumerate(term.axes) if ref.shape[axis] == size]
    if not fitting:
        return term
    number = next((each for each in fitting if is_bound(*term.axes[each])), fitting[0])
    return replace(term, axes=term.axes[:number] + term.axes[number + 1 :], factor=term.factor * left)
