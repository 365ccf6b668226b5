"""Reading features by hooks: a forward pass whose tapped features are handed out as they appear."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from prunekit.coupling.groups import Tap
from prunekit.errors import RecipeError
from prunekit.inputs import is_number, reals, tensors_in

Reader = Callable[[Tap, Tensor], None]


@contextmanager
def tapped(model: nn.Module, taps: Iterable[Tap], read: Reader) -> Iterator[None]:
    """Within the block, ``read`` gets each tap's feature during every forward pass; the hooks go at its end.

    Raises RecipeError where a tap names no module of ``model``.
    """
    handles = []
    try:
        for tap in taps:
            try:
                module = model.get_submodule(tap.module)
            except AttributeError as error:
                raise RecipeError(f"no module {tap.module!r} to read features from") from error
            handles.append(_attach(module, tap, read))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _attach(module: nn.Module, tap: Tap, read: Reader) -> Any:
    def hand_out(value: Any) -> None:
        feature = next((reals(t) for t in tensors_in(value) if is_number(t)), None)
        if feature is None:
            raise RecipeError(f"the {tap.side} of {tap.module} is no floating tensor")
        read(tap, feature)

    if tap.side == "input":
        return module.register_forward_pre_hook(lambda _module, args: hand_out(args))
    return module.register_forward_hook(lambda _module, _args, output: hand_out(output))
