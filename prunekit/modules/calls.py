"""Every call of a module, of whatever class, goes through a function of ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from prunekit.modules.process_wide import ProcessWide

Plain = Callable[..., Any]
Around = Callable[[Plain, nn.Module, tuple[Any, ...], dict[str, Any]], Any]


class _Scope:
    """One ``calls_through``: what it does with a call, and the modules for which other threads ask it too."""

    def __init__(self, around: Around, plain: Plain, elsewhere: Collection[int]) -> None:
        self.around, self.plain, self.elsewhere = around, plain, elsewhere

    def call(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return self.around(self.plain, module, args, kwargs)


class _Mine(threading.local):
    """The scopes of one thread, the innermost last."""

    def __init__(self) -> None:
        self.scopes: list[_Scope] = []


_MINE = _Mine()
_OPEN: list[_Scope] = []  # of all threads
_PLAIN: Plain = nn.Module._call_impl


@contextmanager
def calls_through(around: Around, elsewhere: Collection[int] = ()) -> Iterator[None]:
    """Inside, a call of a module is ``around(plain, module, args, kwargs)``, and ``plain`` what torch would do.

    Calls of this thread are met, and those that other threads make of the modules whose ids are ``elsewhere``: what a
    backward pass computes again, a device's own thread does. What another thread does with its models is its own.

    It is exchanged, not hooked: a hook cannot catch what forward raises. And what ``__call__`` calls is exchanged: for
    ``__call__`` itself, a slot of the type, Python goes through all classes of modules that there are, for milliseconds
    where timm and transformers are imported. What was compiled in place would go past it, and is run eagerly.
    """
    with _exchanged():
        scope = _Scope(around, _MINE.scopes[-1].call if _MINE.scopes else _PLAIN, elsewhere)
        try:
            _OPEN.append(scope)
            _MINE.scopes.append(scope)
            yield
        finally:
            for scopes in (_MINE.scopes, _OPEN):
                if scope in scopes:
                    scopes.remove(scope)


@ProcessWide
@contextmanager
def _exchanged() -> Iterator[None]:
    global _PLAIN
    compiled = vars(nn.Module)["_compiled_call_impl"]
    _PLAIN = nn.Module._call_impl
    try:
        nn.Module._call_impl = _call  # type: ignore[assignment, method-assign]
        nn.Module._compiled_call_impl = property(_compiled, _stored)  # type: ignore[assignment]
        yield
    finally:
        nn.Module._call_impl = _PLAIN  # type: ignore[method-assign]
        nn.Module._compiled_call_impl = compiled


def _scope_of(module: nn.Module) -> _Scope | None:
    if _MINE.scopes:
        return _MINE.scopes[-1]
    return next((scope for scope in reversed(tuple(_OPEN)) if id(module) in scope.elsewhere), None)


def _call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    scope = _scope_of(module)
    return _PLAIN(module, *args, **kwargs) if scope is None else scope.call(module, *args, **kwargs)


def _compiled(module: nn.Module) -> Any:
    return None if _scope_of(module) else vars(module).get("_compiled_call_impl")


def _stored(module: nn.Module, compiled: Any) -> None:
    vars(module)["_compiled_call_impl"] = compiled
