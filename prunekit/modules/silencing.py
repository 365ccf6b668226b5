"""Sums of which one term is heard, or silenced: what a residual branch adds to its stream."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.errors import TraceError
from prunekit.modules.calls import Plain, calls_through
from prunekit.modules.dispatching import DispatchMode
from prunekit.modules.fast_path import without_fast_path
from prunekit.modules.walk import named_modules

_SUMS = ("aten.add", "aten.sub")
Heard = Callable[["Addend", Tensor, Tensor], None]


@dataclass(frozen=True)
class Addend:
    """One term of a sum of two tensors of one shape.

    ``module`` is the innermost module that adds, ``number`` counts such sums in it, ``operand`` the term's place;
    ``last`` is the number of the sum that has all terms, where there are more than two.
    """

    module: str
    number: int
    operand: int
    last: int


def is_sum(func: Any, args: Any, shape_of: Callable[[Any], Any] = lambda x: getattr(x, "shape", None)) -> bool:
    """Whether an operator adds or subtracts two tensors of one shape."""
    name = str(func.overloadpacket).removesuffix("_")
    if name not in _SUMS or len(args) < 2:
        return False
    one, other = shape_of(args[0]), shape_of(args[1])
    return one is not None and other is not None and tuple(one) == tuple(other)


@contextlib.contextmanager
def silenced(model: nn.Module, terms: Collection[Addend]) -> Iterator[None]:
    """Inside the context the ``terms`` are zero. Raises TraceError at its end for one that no forward pass met."""
    with _listening(model, terms, None):
        yield


@contextlib.contextmanager
def overheard(model: nn.Module, terms: Collection[Addend], note: Heard) -> Iterator[None]:
    """Inside the context ``note(term, sum without the term, sum)`` is called for every one of the terms."""
    with _listening(model, terms, note):
        yield


@contextlib.contextmanager
def _listening(model: nn.Module, terms: Collection[Addend], note: Heard | None) -> Iterator[None]:
    if not terms:
        yield
        return
    mode = _Listener(model, terms, note)

    def call(plain: Plain, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        path = mode.paths.get(id(module), mode.stack[-1])
        mode.stack.append(path)
        if path == "":
            mode.counts.clear()  # a new forward pass
        try:
            return plain(module, *args, **kwargs)
        finally:
            mode.stack.pop()

    with without_fast_path(), calls_through(call, mode.paths), mode:
        yield
    if missing := set(terms) - mode.met:
        one = min(missing, key=lambda term: (term.module, term.number))
        raise TraceError("the sum that it ends in was not met again", where=one.module)


class _Listener(DispatchMode):
    """Sees the sums of every module."""

    def __init__(self, model: nn.Module, terms: Collection[Addend], note: Heard | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.paths = {id(module): path for path, module in named_modules(model)}
        self.terms: dict[tuple[str, int], list[Addend]] = {}
        for term in terms:
            self.terms.setdefault((term.module, term.number), []).append(term)
        self.note, self.met = note, set[Addend]()
        self.stack, self.counts = [""], Counter[str]()
        self.waiting: list[tuple[Addend, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not is_sum(func, args):
            return func(*args, **kwargs)
        module = self.stack[-1]
        number = self.counts[module]
        self.counts[module] += 1
        mine = self.terms.get((module, number), [])
        self.met.update(mine)
        if self.note is None:
            return func(*_with_zeros(func, list(args), mine), **kwargs)
        for term in mine:
            self.waiting.append((term, _added_by(func, args, kwargs, term.operand)))
        made = func(*args, **kwargs)
        for term, share in [each for each in self.waiting if (each[0].module, each[0].last) == (module, number)]:
            self.note(term, made - share, made)
        self.waiting = [each for each in self.waiting if (each[0].module, each[0].last) != (module, number)]
        return made


def _with_zeros(func: Any, args: list[Any], terms: Collection[Addend]) -> list[Any]:
    for term in terms:
        if term.operand == 0 and func._schema.is_mutable:
            args[0].zero_()
        else:
            args[term.operand] = torch.zeros_like(args[term.operand])
    return args


def _added_by(func: Any, args: Any, kwargs: Any, operand: int) -> Tensor:
    """What a term adds to the sum."""
    if operand == 0:
        return torch.clone(args[0])
    sign = -1 if "sub" in str(func.overloadpacket) else 1
    return torch.mul(args[1], sign * kwargs.get("alpha", 1))
