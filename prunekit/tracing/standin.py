"""Runs a model on meta stand-ins of its own tensors, and puts everything back afterwards."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.graph.provenance import TracedInt
from prunekit.modules.emptied import Emptied, Place, holds_tensors, with_exchanged
from prunekit.modules.holdings import held_by
from prunekit.modules.memos import forgotten
from prunekit.modules.walk import named_modules, state_tensors

AttributeKey = tuple[str, str, int | None]


def _traced(
    path: str, name: str, value: Any, seen: dict[AttributeKey, int], values: Mapping[AttributeKey, float]
) -> Any:
    """An int, or a sequence that holds some, with every int replaced by one that remembers its attribute."""
    if type(value) is int:
        value = int(values.get((path, name, None), value))
        seen[path, name, None] = value
        return TracedInt(value, ("attribute", path, name, None))
    items = []
    for i, v in enumerate(value):
        if type(v) is int:
            v = int(values.get((path, name, i), v))
            seen[path, name, i] = v
            v = TracedInt(v, ("attribute", path, name, i))
        items.append(v)
    return type(value)(items)


@contextlib.contextmanager
def swapped(
    model: nn.Module,
    replace: Callable[[str, Tensor], Tensor],
    modules: Sequence[tuple[str, nn.Module]] | None = None,
    state: Mapping[str, Tensor] | None = None,
    tables: Collection[Place] | None = (),
) -> Iterator[None]:
    """Inside the context the model holds ``replace(name, tensor)`` for each state tensor and is in eval mode.

    On leaving, every module's ``__dict__`` is what it was, whatever forward did to it: tensors, caches, counters,
    training mode, hooks that it registered, what lies in containers and configurations; the global random state as
    well. What functions of the model's classes remember is forgotten before and after. ``modules`` are the model's
    ``named_modules`` and ``state`` its ``state_tensors``, where they are known.

    A dict of tensors is empty inside, for forward to fill it, but for those in ``tables``, see ``Trace.tables``; None
    says that all stay, since what ``replace`` gives holds the same values.
    """
    modules = named_modules(model) if modules is None else modules
    state = state_tensors(model, modules) if state is None else state
    with forgotten(model, modules):
        yield from _swapped(modules, {id(t): n for n, t in state.items()}, replace, tables)


def _swapped(
    modules: Sequence[tuple[str, nn.Module]],
    names: Mapping[int, str],
    replace: Callable[[str, Tensor], Tensor],
    tables: Collection[Place] | None,
) -> Iterator[None]:
    stood: dict[int, Any] = {}
    saved: list[tuple[nn.Module, dict[str, Any]]] = []
    contents: list[tuple[dict[str, Any], dict[str, Any]]] = []
    held = held_by(modules)
    rng = torch.get_rng_state()
    try:
        for path, module in modules:
            saved.append((module, dict(module.__dict__)))
            own = module.__dict__
            contents += [(own[name], dict(own[name]) if own[name] else _EMPTY) for name in _CONTAINERS if name in own]
            for store in (module._parameters, module._buffers):
                for name, tensor in store.items():
                    if tensor is None:
                        continue
                    if id(tensor) not in stood:
                        stood[id(tensor)] = replace(names[id(tensor)], tensor)
                    store[name] = stood[id(tensor)]
            for name, value in module.__dict__.items():
                if type(value) in _MUTABLE and name not in _STRUCTURE and not name.endswith("_hooks"):
                    is_cache = tables is not None and (path, name) not in tables and holds_tensors(value)
                    own_value = Emptied(value) if is_cache else _own(value, stood)
                    module.__dict__[name] = own_value  # a known key: the dict keeps its order and size
            module.__dict__["training"] = False
        yield
    finally:
        for module, attributes in saved:
            module.__dict__.clear()
            module.__dict__.update(attributes)
        for store, content in contents:
            if store or content:
                store.clear()
                store.update(content)
        held.put_back()
        torch.set_rng_state(rng)


_EMPTY: dict[str, Any] = {}  # what most of the containers of a module hold
_MUTABLE = (dict, list, set)
_STRUCTURE = ("_parameters", "_buffers", "_modules")
_CONTAINERS = (
    *_STRUCTURE,
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks"),
)


def _own(value: Any, stood: dict[int, Any]) -> Any:
    """A copy of what forward may write into, with the stand-ins of state tensors in it."""
    key = id(value)  # a list that two modules share stays shared
    if key not in stood:
        made = with_exchanged(value, stood)
        stood[key] = copy.copy(value) if made is value else made
    return stood[key]


@contextlib.contextmanager
def stand_in(
    model: nn.Module,
    replace: Callable[[str, Tensor], Tensor],
    values: Mapping[AttributeKey, float],
    is_traced: bool = True,
    modules: Sequence[tuple[str, nn.Module]] | None = None,
    state: Mapping[str, Tensor] | None = None,
    tables: Collection[Place] = (),
) -> Iterator[dict[AttributeKey, int]]:
    """``swapped``, and every int attribute remembers where it came from; ``values`` overrides some.

    Yields the attributes that were replaced, with their values. Without ``is_traced`` only the overrides are put in.
    """
    seen: dict[AttributeKey, int] = {}
    modules = named_modules(model) if modules is None else modules
    with swapped(model, replace, modules, state, tables):
        named = {path for path, _, _ in values}
        for path, module in modules if is_traced or named else ():
            if isinstance(module, torch.jit.ScriptModule) or not (is_traced or path in named):
                continue
            for name, value in module.__dict__.items():
                if type(value) is float and (path, name, None) in values:
                    module.__dict__[name] = values[path, name, None]
                elif type(value) is int or (type(value) in (tuple, list) and any(type(v) is int for v in value)):
                    if is_traced:
                        module.__dict__[name] = _traced(path, name, value, seen, values)
                    else:
                        module.__dict__[name] = _overridden(path, name, value, values)
        yield seen


def _overridden(path: str, name: str, value: Any, values: Mapping[AttributeKey, float]) -> Any:
    if type(value) is int:
        return int(values.get((path, name, None), value))
    return type(value)(int(values.get((path, name, i), v)) if type(v) is int else v for i, v in enumerate(value))
