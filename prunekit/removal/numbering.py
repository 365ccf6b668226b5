"""What in a model counts its blocks: numbers that tell a block its place, and lists that have a value a block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.coupling.blocks import is_inside
from prunekit.inputs import Inputs
from prunekit.modules.containers import place
from prunekit.modules.walk import named_modules
from prunekit.modules.write_guard import originals_of, written_back
from prunekit.tracing.standin import swapped

_CHANCE = 2  # so few numbers may equal their places by chance
_OWN = ("_parameters", "_buffers", "_modules", "training")
_DEPTH = 3  # objects inside objects that a module holds


@dataclass(frozen=True)
class PlaceHeld:
    """A whole number that a module inside an entry holds, and that is the entry's place plus ``first``."""

    module: str
    attribute: str
    place: int
    value: int
    is_sure: bool


@dataclass(frozen=True)
class Listed:
    """A list or tuple with a value an entry, which forward reads: place by place (``is_sure``) or as a whole."""

    module: str
    attribute: str
    size: int
    is_sure: bool


@dataclass(frozen=True)
class Counter:
    """A whole number that is the number of entries, and may be meant to."""

    module: str
    attribute: str
    value: int


@dataclass(frozen=True)
class Numbering:
    """What counts the entries of one container."""

    indices: tuple[PlaceHeld, ...]
    lists: tuple[Listed, ...]
    counters: tuple[Counter, ...]


def numberings(model: nn.Module, containers: Mapping[str, Sequence[str]], inputs: Inputs) -> dict[str, Numbering]:
    """What counts the entries (their names) of each container, by its path. Runs the model where it holds such lists.

    Found by value and place, never by name: a number that equals the place of its entry in every entry that has one of
    that name; a list with as many values as there are entries, which forward reads.
    """
    objects = list(_objects(model))
    lists = _lists_read(model, objects, {len(names) for names in containers.values()}, inputs)
    found = {}
    for container, names in containers.items():
        size = len(names)
        inside = [place(container, name) for name in names]
        mine = tuple(each for each in lists if each.size == size and not _is_own(each, inside))
        counters = tuple(_counters(objects, container, size))
        found[container] = Numbering(tuple(places_held(model, container, names)), mine, counters)
    return found


def _is_own(each: Listed, entries: Sequence[str]) -> bool:
    """Whether an entry holds the list by itself: what it says is about that entry."""
    return "." not in each.attribute and is_inside(each.module, entries)


def places_held(model: nn.Module, container: str, names: Sequence[str]) -> Iterator[PlaceHeld]:
    """Numbers that tell what is in an entry of the container the entry's place."""
    seen: dict[str, list[tuple[str, int, int]]] = {}
    for at, name in enumerate(names):
        path = place(container, name)
        for inner, module in named_modules(model.get_submodule(path)):
            for attribute, value in vars(module).items():
                if type(value) is int:
                    seen.setdefault(attribute, []).append((f"{path}.{inner}".rstrip("."), at, value))
    for attribute, every in seen.items():
        places = {at for _, at, _ in every}
        first = every[0][2] - every[0][1]
        if len(places) < _CHANCE or first not in (0, 1) or any(value - at != first for _, at, value in every):
            continue
        for inside, at, value in every:
            yield PlaceHeld(inside, attribute, at, value, len(places) > _CHANCE)


def _objects(model: nn.Module) -> Iterator[tuple[str, str, Any]]:
    """Modules, and plain objects that they hold, such as a configuration: module, dotted way to it, and the object."""
    seen: set[int] = set()
    for path, module in named_modules(model):
        waiting: list[tuple[str, Any, int]] = [("", module, 0)]
        while waiting:
            way, held, deep = waiting.pop(0)
            if id(held) in seen:
                continue
            seen.add(id(held))
            yield path, way, held
            inside = [(name, value) for name, value in list(vars(held).items()) if name not in _OWN]
            waiting += [(f"{way}{name}.", v, deep + 1) for name, v in inside if deep < _DEPTH and _is_plain(v)]


def _is_plain(value: Any) -> bool:
    known = (nn.Module, Tensor, type, torch.device, torch.dtype)
    return hasattr(value, "__dict__") and not isinstance(value, known) and not callable(value)


def _counters(objects: Sequence[tuple[str, str, Any]], container: str, size: int) -> Iterator[Counter]:
    """Those of the module that owns the container first."""
    owner = container.rpartition(".")[0]
    found = [
        Counter(path, f"{way}{name}", size)
        for path, way, held in objects
        for name, value in vars(held).items()
        if type(value) is int and value == size and (way or path == owner)
    ]
    yield from sorted(found, key=lambda each: each.module != owner or "." in each.attribute)


class _ListReads:
    """How a list was read during one forward pass."""

    def __init__(self) -> None:
        self.places: set[int] = set()
        self.whole = False


class _Spy:
    """What a list and a tuple that are watched have in common; before either in the order of classes."""

    reads: _ListReads

    def __getitem__(self, at: Any) -> Any:
        _noted(self, at)
        return super().__getitem__(at)  # type: ignore[misc]

    def __iter__(self) -> Iterator[Any]:
        self.reads.whole = True
        return super().__iter__()  # type: ignore[misc,no-any-return]


class _SpyList(_Spy, list[Any]):
    pass


class _SpyTuple(_Spy, tuple[Any, ...]):
    pass


def _noted(spy: Any, at: Any) -> None:
    if isinstance(at, int):
        spy.reads.places.add(at % len(spy))
    else:
        spy.reads.whole = True


def _lists_read(
    model: nn.Module, objects: Sequence[tuple[str, str, Any]], sizes: set[int], inputs: Inputs
) -> list[Listed]:
    found = [
        (path, way, held, name, value)
        for path, way, held in objects
        for name, value in vars(held).items()
        if type(value) in (list, tuple) and len(value) in sizes and not any(map(_is_tensor_or_module, value))
    ]
    if not found:
        return []
    spies: list[_ListReads] = []
    kept = originals_of(model)
    with swapped(model, lambda _, tensor: tensor, tables=None), written_back(kept), torch.no_grad():
        try:
            for *_, held, name, value in found:
                spies.append(_ListReads())
                spy = (_SpyList if type(value) is list else _SpyTuple)(value)
                spy.reads = spies[-1]
                vars(held)[name] = spy
            model(*inputs.args, **inputs.kwargs)
        finally:
            for *_, held, name, value in found:
                vars(held)[name] = value
    return [
        Listed(path, f"{way}{name}", len(value), len(reads.places) == len(value) > _CHANCE)
        for (path, way, _, name, value), reads in zip(found, spies, strict=True)
        if reads.whole or len(reads.places) == len(value)
    ]


def _is_tensor_or_module(value: Any) -> bool:
    return isinstance(value, (Tensor, nn.Module))
