"""What the code of a model's classes remembers of earlier calls (``functools.lru_cache``), beyond any one model.

A value that is remembered while the model runs on stand-ins would come back in real runs, and the other way round. One
that is remembered by sizes would come back for another module, with the sizes of the first: what functions that the
classes' files import remember so (einops does) is forgotten too, and at every module call while a trace follows sizes.
"""

from __future__ import annotations

import functools
import gc
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from prunekit.modules.walk import named_modules

_DEPTH = 4  # decorators around decorators


@contextmanager
def forgotten(model: nn.Module, modules: Sequence[tuple[str, nn.Module]] | None = None) -> Iterator[None]:
    """Within the block nothing is remembered from before it, and afterwards nothing from within: it is made again."""
    memos, by_sizes = memos_of(model, modules), memos_by_sizes(model, modules)
    _clear(memos)
    forget_sizes(by_sizes)
    try:
        yield
    finally:
        _clear(memos)
        forget_sizes(by_sizes)


def memos_of(model: nn.Module, modules: Sequence[tuple[str, nn.Module]] | None = None) -> tuple[Any, ...]:
    """The caches of functions in the classes of ``model``, and in the files where these are written.

    ``modules`` are the model's ``named_modules``, where they are known.
    """
    return _of_each(_memos_of_class, _kinds(model, modules))


def memos_by_sizes(model: nn.Module, modules: Sequence[tuple[str, nn.Module]] | None = None) -> tuple[Memo, ...]:
    """The caches, of functions that take arguments, in the files that ``memos_of`` looks into, in those that functions
    there come from, and in those that functions there come from."""
    return _of_each(_imported_memos_of_class, _kinds(model, modules))


@dataclass(eq=False)
class Memo:
    """A cache of ``functools.lru_cache``, what it holds and at most, and how many entries it had without one by sizes.

    Its dict is looked at, since a trace does so at every call of a module and ``cache_info`` takes microseconds.
    """

    function: Any
    held: Mapping[Any, Any]
    most: int | None
    seen: int = 0


def forget_sizes(memos: Iterable[Memo]) -> None:
    """Clears those that remember by an int or a tensor."""
    for memo in memos:
        count = len(memo.held)
        if count != memo.seen or (count and count == memo.most):  # a full one holds others than it did
            if any(_has_size(key, 0) for key in memo.held):
                memo.function.cache_clear()
            memo.seen = len(memo.held)


def _has_size(key: Any, depth: int) -> bool:
    if isinstance(key, (int, Tensor)):
        return type(key) is not bool
    return isinstance(key, (tuple, list)) and depth < _DEPTH and any(_has_size(part, depth + 1) for part in key)


def _kinds(model: nn.Module, modules: Sequence[tuple[str, nn.Module]] | None) -> set[Any]:
    return {type(module) for _, module in (named_modules(model) if modules is None else modules)}


def _of_each(memos_in: Callable[[Any], tuple[Any, ...]], kinds: Iterable[Any]) -> tuple[Any, ...]:
    return tuple({id(memo): memo for kind in kinds for memo in memos_in(kind)}.values())


def _clear(memos: tuple[Any, ...]) -> None:
    for memo in memos:
        if memo.cache_info().currsize:
            memo.cache_clear()


@functools.cache
def _memos_of_class(kind: Any) -> tuple[Any, ...]:
    found: list[Any] = []
    for base in kind.__mro__:
        if base in (nn.Module, object) or base.__module__.partition(".")[0] in _WITHOUT:
            continue
        held = (*vars(base).values(), *vars(sys.modules.get(base.__module__, base)).values())
        for value in held:
            found += _within(value, 0)
    return tuple({id(memo): memo for memo in found}.values())


@functools.cache
def _imported_memos_of_class(kind: Any) -> tuple[Memo, ...]:
    near = {
        base.__module__ for base in kind.__mro__ if base not in (nn.Module, object) and _is_followed(base.__module__)
    }
    seen = set(near)
    for _ in range(2):
        near = {source for name in near for source in _sources(name)} - seen
        seen |= near
    return tuple({id(memo): memo for name in seen for memo in _memos_of_file(name)}.values())


@functools.cache
def _sources(name: str) -> frozenset[str]:
    """The files that functions in this one's names come from."""
    held = list(vars(sys.modules[name]).values()) if name in sys.modules else []
    inner = [vars(value).values() for value in held if isinstance(value, ModuleType) and _is_followed(value.__name__)]
    found = {str(v.__module__) for values in (held, *inner) for v in values if isinstance(v, (FunctionType, type))}
    return frozenset(source for source in found if _is_followed(source))


@functools.cache
def _memos_of_file(name: str) -> tuple[Memo, ...]:
    held = list(vars(sys.modules[name]).values()) if name in sys.modules else []
    found = {id(memo): memo for value in held for memo in _within(value, 0) if _takes_arguments(memo)}
    return tuple(_memo_of(function) for function in found.values())


@functools.cache
def _memo_of(function: Any) -> Memo:
    own = vars(function)
    held = next(each for each in gc.get_referents(function) if type(each) is dict and each is not own)
    return Memo(function, held, function.cache_parameters()["maxsize"])


def _takes_arguments(memo: Any) -> bool:
    code = getattr(getattr(memo, "__wrapped__", None), "__code__", None)
    return code is None or code.co_argcount + code.co_kwonlyargcount > 0 or code.co_flags & inspect.CO_VARARGS > 0


def _is_followed(name: str) -> bool:
    top = name.partition(".")[0]
    return top not in _WITHOUT and top not in sys.stdlib_module_names and top not in _NUMBERS


_NUMBERS = ("numpy", "scipy", "prunekit")

# torch's own remember what is of no model, and clearing that would cost every later call
_WITHOUT = ("torch", "builtins")


def _within(value: Any, depth: int) -> list[Any]:
    """The caches that ``value`` is or wraps."""
    if isinstance(value, (MethodType, classmethod, staticmethod)):  # others are not asked: some answer with an import
        value = value.__func__
    if isinstance(value, property):
        value = value.fget
    if isinstance(value, _MEMO):
        return [] if _is_foreign(value) else [value]
    if depth >= _DEPTH or not isinstance(value, FunctionType):
        return []
    cells = [cell.cell_contents for cell in value.__closure__ or () if _is_set(cell)]
    return [memo for held in (*cells, getattr(value, "__wrapped__", None)) for memo in _within(held, depth + 1)]


def _is_foreign(memo: Any) -> bool:
    return not _is_followed(str(getattr(memo, "__module__", "")))


def _is_set(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


_MEMO = type(functools.cache(lambda: None))
