"""What the code of a model's classes remembers of earlier calls (``functools.lru_cache``), beyond any one model.

A value that is remembered while the model runs on stand-ins would come back in real runs, and the other way round.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from torch import nn

from prunekit.modules.walk import named_modules

_DEPTH = 4  # decorators around decorators


@contextmanager
def forgotten(model: nn.Module, modules: Sequence[tuple[str, nn.Module]] | None = None) -> Iterator[None]:
    """Within the block nothing is remembered from before it, and afterwards nothing from within: it is made again."""
    memos = memos_of(model, modules)
    _clear(memos)
    try:
        yield
    finally:
        _clear(memos)


def memos_of(model: nn.Module, modules: Sequence[tuple[str, nn.Module]] | None = None) -> tuple[Any, ...]:
    """The caches of functions in the classes of ``model``, and in the files where these are written.

    ``modules`` are the model's ``named_modules``, where they are known.
    """
    found: dict[int, Any] = {}
    kinds: set[Any] = {type(module) for _, module in (named_modules(model) if modules is None else modules)}
    for kind in kinds:
        for memo in _memos_of_class(kind):
            found[id(memo)] = memo
    return tuple(found.values())


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


# torch's own remember what is of no model, and clearing that would cost every later call
_WITHOUT = ("torch", "builtins")


def _within(value: Any, depth: int) -> list[Any]:
    """The caches that ``value`` is or wraps."""
    if hasattr(value, "__func__"):
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
    return str(getattr(memo, "__module__", "")).partition(".")[0] in _WITHOUT


def _is_set(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


_MEMO = type(functools.cache(lambda: None))
