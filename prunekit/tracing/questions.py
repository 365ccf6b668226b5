"""What code asks tensors in other ways than by an operator, and what stand-ins on the meta device answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor

_ASKED = ("get_autocast_dtype", "is_autocast_enabled")


@contextmanager
def answered_as(device: str) -> Iterator[None]:
    """Inside, the autocast and the tensor types of the meta device are those of ``device``, and values that a text or a
    comparison needs are asked for by an operator, which a trace that knows numbers answers."""
    with ExitStack() as scope:
        scope.enter_context(_autocast_of(device))
        scope.enter_context(_types_of(device))
        scope.enter_context(_asking())
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


@contextmanager
def _asking() -> Iterator[None]:
    """``f"{x.mean():.2f}"`` and ``torch.allclose``, whose own kernels take the value out where no mode sees it."""
    written, close = Tensor.__format__, torch.allclose

    @wraps(written)
    def formatted(tensor: Tensor, spec: str) -> str:
        if tensor.is_meta and not tensor.dim():
            return format(tensor.item(), spec)
        text: str = written(tensor, spec)  # type: ignore[no-untyped-call]
        return text

    @wraps(close)
    def are_close(a: Tensor, b: Tensor, *args: Any, **kwargs: Any) -> bool:
        return bool(torch.isclose(a, b, *args, **kwargs).all())

    Tensor.__format__ = formatted  # type: ignore[method-assign]
    Tensor.allclose = are_close  # type: ignore[method-assign, assignment]
    torch.allclose = are_close  # type: ignore[assignment]
    try:
        yield
    finally:
        Tensor.__format__ = written  # type: ignore[method-assign]
        del Tensor.allclose  # a method of the class below
        torch.allclose = close
