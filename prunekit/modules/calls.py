"""Every call of a module, of whatever class, goes through a function of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

Plain = Callable[..., Any]
Around = Callable[[Plain, nn.Module, tuple[Any, ...], dict[str, Any]], Any]


@contextmanager
def calls_through(around: Around) -> Iterator[None]:
    """Inside, a call of a module is ``around(plain, module, args, kwargs)``, and ``plain`` what torch would do.

    It is exchanged, not hooked: a hook cannot catch what forward raises. And what ``__call__`` calls is exchanged: for
    ``__call__`` itself, a slot of the type, Python goes through all classes of modules that there are, for milliseconds
    where timm and transformers are imported. What was compiled in place would go past it, and is run eagerly.
    """
    plain: Plain = nn.Module._call_impl
    compiled = vars(nn.Module)["_compiled_call_impl"]

    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return around(plain, module, args, kwargs)

    nn.Module._call_impl = call  # type: ignore[assignment, method-assign]
    nn.Module._compiled_call_impl = property(lambda module: None, _stored)  # type: ignore[assignment]
    try:
        yield
    finally:
        nn.Module._call_impl = plain  # type: ignore[method-assign]
        nn.Module._compiled_call_impl = compiled


def _stored(module: nn.Module, compiled: Any) -> None:
    vars(module)["_compiled_call_impl"] = compiled
