"""A forward that uses the name of its tensors' device, where that is the meta device: stand-ins have no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor

_ASKED = ("get_autocast_dtype", "is_autocast_enabled")


@contextmanager
def named_as(device: str) -> Iterator[None]:
    """Inside, who asks for the autocast or the tensor type of the meta device gets that of ``device``."""
    with ExitStack() as scope:
        scope.enter_context(_autocast_of(device))
        scope.enter_context(_types_of(device))
        yield


@contextmanager
def _autocast_of(device: str) -> Iterator[None]:
    """``torch.autocast(x.device.type)``: the meta device has none; that of ``device`` leaves stand-ins alone."""

    def meant(function: Callable[..., Any], place: int) -> Callable[..., Any]:
        @wraps(function)
        def asked(*args: Any, **kwargs: Any) -> Any:
            given = [device if n == place and value == "meta" else value for n, value in enumerate(args)]
            named = {
                key: device if key == "device_type" and value == "meta" else value for key, value in kwargs.items()
            }
            return function(*given, **named)

        return asked

    plain = torch.autocast.__init__, {name: getattr(torch, name) for name in _ASKED}
    torch.autocast.__init__ = meant(plain[0], 1)  # type: ignore[method-assign]
    for name, function in plain[1].items():
        setattr(torch, name, meant(function, 0))
    try:
        yield
    finally:
        torch.autocast.__init__ = plain[0]  # type: ignore[method-assign]
        for name, function in plain[1].items():
            setattr(torch, name, function)


@contextmanager
def _types_of(device: str) -> Iterator[None]:
    """``x.type()`` and ``x.type(y.type())``: a type names a dtype and a device, and meta's can be given to no one."""
    plain = Tensor.type

    @wraps(plain)
    def asked(tensor: Tensor, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        if not tensor.is_meta or isinstance(dtype, torch.dtype):
            return plain(tensor, dtype, *args, **kwargs)
        if dtype is None:
            return plain(tensor).replace("torch.meta.", "torch." if device == "cpu" else f"torch.{device}.")
        name = dtype if isinstance(dtype, str) else torch.typename(dtype)
        named = getattr(getattr(torch, name.rpartition(".")[2], None), "dtype", None)
        return plain(tensor, dtype, *args, **kwargs) if named is None else tensor.to(named)

    Tensor.type = asked  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del Tensor.type  # a method of the class below
