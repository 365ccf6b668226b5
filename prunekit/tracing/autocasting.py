"""``torch.autocast(x.device.type)`` in a forward whose tensors are stand-ins: the meta device has no autocast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch

_ASKED = ("get_autocast_dtype", "is_autocast_enabled")


@contextmanager
def autocast_of(device: str) -> Iterator[None]:
    """Inside, who asks for the autocast of the meta device gets that of ``device``, which leaves stand-ins alone."""

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
