"""Which module calls a forward pass consists of, and when it first reads each tensor: seen once, on real numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from prunekit.modules.calls import Plain, calls_through
from prunekit.modules.dispatching import DispatchMode
from prunekit.modules.walk import named_modules, state_tensors
from prunekit.plans.contents import Plan

Run = Callable[[], Any]


@dataclass(frozen=True)
class Called:
    """One module call: which module, from when to when in ticks, and how many calls it has inside.

    ``pure`` says that it neither wrote into what it was given nor gave that out again, so that its output alone stands
    for it.
    """

    module: int
    start: int
    end: int
    inside: int
    pure: bool


@dataclass(frozen=True, eq=False)
class Survey:
    """A forward pass: its module calls in the order in which they begin, and ticks of first reads and calls by name.

    ``work`` (ticks + 1,) is what has been computed by each tick: floating-point operations of products, and a few for
    every element of any operator's result.
    """

    calls: tuple[Called, ...]
    first_read: Mapping[str, int]
    first_call: Mapping[str, int]
    work: Sequence[float]

    def share(self, start: int, end: int) -> float:
        """What lies between two ticks, as a share of a forward pass."""
        last = len(self.work) - 1
        return (self.work[min(end, last)] - self.work[min(start, last)]) / max(self.work[-1], 1.0)

    def begins(self, plan: Plan, base: Plan | None = None) -> int:
        """The tick at which a forward pass under ``plan`` first differs from one under ``base``, the original if None.

        0 where that cannot be told.
        """
        ticks = [self.first_read[name] for name in _touched(plan, base) if name in self.first_read]
        moved = {(e.module, e.attribute, e.index): e.after for e in plan.edits}
        stood = {(e.module, e.attribute, e.index): e.after for e in base.edits} if base else {}
        differ = {key[0] for key in moved.keys() | stood.keys() if moved.get(key) != stood.get(key)}
        ticks += [self.first_call.get(module, 0) for module in differ]
        gone, went = _modules_gone(plan), _modules_gone(base)
        ticks += [self.first_call.get(module, 0) for module in gone ^ went]
        ticks += [0] if _changes_more(plan, base) else []
        return min(ticks, default=0)


_FOLLOWED = ("fingerprint", "widths", "cuts", "edits", "folds", "frozen", "removals", "absences")


def _modules_gone(plan: Plan | None) -> set[str]:
    """The modules that go; what stays of a container comes before or after them, as it did."""
    if plan is None:
        return set()
    return {path for removal in plan.removals for path in removal.gone} | {each.module for each in plan.absences}


def _changes_more(plan: Plan, base: Plan | None) -> bool:
    """Whether a plan says something that is not followed here, such as lists that go with blocks: all may differ."""
    others = [each.name for each in fields(plan) if each.name not in _FOLLOWED]
    return any((getattr(plan, name) or None) != (getattr(base, name, None) or None) for name in others)


def _touched(plan: Plan, base: Plan | None) -> set[str]:
    """The tensors that differ."""

    def told(some: Plan | None) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        if some is not None:
            for name, each in [*((c.tensor, c) for c in some.cuts), *((f.tensor, f) for f in some.folds)]:
                found.setdefault(name, []).append(each)
        return found

    now, was = told(plan), told(base)
    return {name for name in now.keys() | was.keys() if now.get(name) != was.get(name)}


class _Reads(DispatchMode):
    """Tells of every storage that an operator is given, and of the work of every operator."""

    def __init__(self, see: Callable[[int], None], worked: Callable[[float], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._see, self._worked = see, worked

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self._see(storage_of(leaf))
        result = func(*args, **(kwargs or {}))
        if not getattr(func, "is_view", False):
            count = flop_registry.get(func.overloadpacket)
            flops = 0 if count is None else count(*args, **(kwargs or {}), out_val=result)
            self._worked(flops + _EACH * sum(t.numel() for t in tree_leaves(result) if isinstance(t, Tensor)))
        return result


_EACH = 4  # operations that an element of a result stands for: reading and writing it takes that long at least


def storage_of(tensor: Tensor) -> int:
    """Where a tensor's numbers lie; 0 where nowhere."""
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else 0


def survey(model: nn.Module, run: Run) -> tuple[Survey, Any]:
    """What ``run``, a forward pass of ``model``, consists of, and what it returns."""
    paths = {id(module): path for path, module in named_modules(model)}
    names: dict[int, list[str]] = {}
    for name, tensor in state_tensors(model).items():
        names.setdefault(storage_of(tensor), []).append(name)
    names.pop(0, None)
    tick = 0
    calls: list[Called | None] = []
    first_read: dict[str, int] = {}
    first_call: dict[str, int] = {}
    work = [0.0]

    def worked(amount: float) -> None:
        work.extend([work[-1]] * (tick + 2 - len(work)))
        work[tick + 1] += amount

    def see(storage: int) -> None:
        for name in names.get(storage, ()):
            first_read.setdefault(name, tick)

    def around(plain: Plain, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal tick
        tick += 1
        number, start = len(calls), tick
        calls.append(None)
        if id(module) in paths:
            first_call.setdefault(paths[id(module)], start)
        before = [
            (t, t._version) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and not t.is_inference()
        ]
        result = plain(module, *args, **kwargs)
        tick += 1
        leaves = tree_leaves(result)
        theirs = {storage_of(t) for t, _ in before} | names.keys()
        pure = (
            all(isinstance(x, Tensor) and storage_of(x) not in theirs for x in leaves)
            and all(t._version == version for t, version in before)
            and bool(leaves)
        )
        calls[number] = Called(id(module), start, tick, len(calls) - number - 1, pure)
        return result

    with calls_through(around, paths), _Reads(see, worked):
        result = run()
    return Survey(tuple(c for c in calls if c is not None), first_read, first_call, work), result
