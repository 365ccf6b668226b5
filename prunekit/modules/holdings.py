"""What modules hold beside their state and each other: containers, objects such as a configuration, plain tensors."""

from __future__ import annotations

import functools
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType
from typing import Any

from torch import Tensor, nn

STRUCTURE = frozenset(vars(nn.Module()))  # what every module has, hooks among it
_DEPTH = 2  # objects within objects: a configuration and one inside it, not all that a trainer knows
_MANY = 10_000  # entries of a container that are looked into; a vocabulary holds words
_TABLES = (dict, OrderedDict, defaultdict)
_OTHERS = (list, set, deque)
_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})  # most of what a module holds
_FOREIGN = ("logging", "threading", "torch")


@dataclass(frozen=True, eq=False)
class Holdings:
    """Containers and objects with what they hold now, and the plain tensors that were met among it."""

    containers: list[tuple[Any, Any]] = field(default_factory=list)
    objects: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)

    def put_back(self) -> None:
        """Every container and object holds again what it held, the very same things in their order."""
        for value, before in self.containers:
            refilled(value, before)
        for value, before in self.objects:
            refilled(vars(value), before)


def held_by(modules: Iterable[tuple[str, nn.Module]]) -> Holdings:
    """What ``modules`` hold in attributes of their own, at any depth of containers."""
    found, seen = Holdings(), set[int]()
    waiting = [
        (value, 0)
        for _, module in modules
        for name, value in module.__dict__.items()
        if type(value) not in _PLAIN and name not in STRUCTURE
    ]
    while waiting:
        value, depth = waiting.pop()
        of_type: Any = type(value)
        kind = _way_into(of_type)
        if kind is None or id(value) in seen:
            continue
        seen.add(id(value))
        waiting += kind(found, value, depth)
    return found


def contents_of(value: Any) -> Any:
    """What a container holds, to be put back by ``refilled``."""
    return dict(value) if isinstance(value, dict) else set(value) if isinstance(value, set) else list(value)


def refilled(value: Any, before: Any) -> None:
    """Puts back what a container held, where it holds anything else."""
    if _is_unchanged(value, before):
        return
    value.clear()
    (value.update if isinstance(value, (dict, set)) else value.extend)(before)


def _is_unchanged(value: Any, before: Any) -> bool:
    """Whether a container holds the same objects in the same order."""
    if len(value) != len(before):
        return False
    if isinstance(value, dict):
        return all(a == b and value[a] is before[b] for a, b in zip(value, before, strict=True))
    if isinstance(value, set):
        return bool(value == before)
    return all(a is b for a, b in zip(value, before, strict=True))


_Inside = list[tuple[Any, int]]


@functools.cache
def _way_into(kind: Any) -> Callable[[Holdings, Any, int], _Inside] | None:
    """How a value of this type is looked into; None for what holds nothing that counts."""
    if issubclass(kind, Tensor):
        return _of_tensor
    if kind in _TABLES:
        return _of_table
    if kind in _OTHERS:
        return _of_list
    if issubclass(kind, tuple):
        return _of_tuple
    called = any("__call__" in vars(base) for base in kind.__mro__)
    if called or kind.__dictoffset__ == 0 or issubclass(kind, (nn.Module, type, ModuleType, Enum)):
        return None
    return None if kind.__module__.partition(".")[0] in _FOREIGN else _of_object


def _of_tensor(found: Holdings, value: Any, depth: int) -> _Inside:
    found.tensors.append(value)
    return []


def _of_table(found: Holdings, value: Any, depth: int) -> _Inside:
    found.containers.append((value, dict(value)))
    return [(each, depth) for each in value.values()] if len(value) <= _MANY else []


def _of_list(found: Holdings, value: Any, depth: int) -> _Inside:
    found.containers.append((value, contents_of(value)))
    return _of_tuple(found, value, depth)


def _of_tuple(found: Holdings, value: Any, depth: int) -> _Inside:
    return [(each, depth) for each in value if type(each) not in _PLAIN] if len(value) <= _MANY else []


def _of_object(found: Holdings, value: Any, depth: int) -> _Inside:
    found.objects.append((value, dict(vars(value))))
    return [(each, depth + 1) for each in vars(value).values()] if depth < _DEPTH else []
