"""Modules passed by: they run, and hand on what they were given in the place of what they made of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from prunekit.errors import TraceError
from prunekit.graph.tree import of_type


@contextlib.contextmanager
def bypassed(model: nn.Module, places: Iterable[str]) -> Iterator[None]:
    """Inside the context the modules at ``places`` return the streams that they are given.

    The first tensor of their output is exchanged for the first tensor among their arguments that has its shape; each
    further one likewise, where an argument of its shape is left. What else they return or write, as into a cache, is
    their own. Raises TraceError from the forward pass where there is no such argument.
    """
    with contextlib.ExitStack() as scope:
        for path in places:
            _Passed(model.get_submodule(path), scope)
        yield


class _Passed:
    """The hooks on one module: it gets copies, since it may write over what it is given."""

    def __init__(self, module: nn.Module, scope: contextlib.ExitStack) -> None:
        self._given: list[Tensor] = []
        scope.callback(module.register_forward_pre_hook(self._before, with_kwargs=True).remove)
        scope.callback(module.register_forward_hook(self._after, with_kwargs=True).remove)

    def _before(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any]:
        self._given = list(of_type((args, kwargs), Tensor))
        copies: dict[int, Tensor] = {}

        def copied(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
                return leaf
            return copies.setdefault(id(leaf), leaf.clone())

        return tree_map(copied, args), tree_map(copied, kwargs)

    def _after(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        given, self._given = self._given, []
        first = True

        def exchanged(leaf: Any) -> Any:
            nonlocal first
            if not isinstance(leaf, Tensor):
                return leaf
            at = next((k for k, tensor in enumerate(given) if tensor.shape == leaf.shape), None)
            if at is None and first:
                raise TraceError(f"{type(module).__name__} is given nothing of the shape {tuple(leaf.shape)}")
            first = False
            return leaf if at is None else given.pop(at)

        return tree_map(exchanged, output)


@contextlib.contextmanager
def watched(model: nn.Module, places: Iterable[str], note: Callable[[str, Tensor, Tensor], None]) -> Iterator[None]:
    """Inside the context ``note(path, stream in, stream out)`` is called after every run of a module at ``places``."""
    with contextlib.ExitStack() as scope:
        for path in places:
            _Watched(model.get_submodule(path), partial(note, path), scope)
        yield


class _Watched:
    """The hooks on one module that tell its streams; a copy of what it is given, which it may write over."""

    def __init__(self, module: nn.Module, note: Callable[[Tensor, Tensor], None], scope: contextlib.ExitStack) -> None:
        self._note, self._given = note, list[Tensor]()
        scope.callback(module.register_forward_pre_hook(self._before, with_kwargs=True).remove)
        scope.callback(module.register_forward_hook(self._after).remove)

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._given = [tensor.clone() for tensor in of_type((args, kwargs), Tensor)]

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        made = next(of_type(output, Tensor))
        self._note(next(tensor for tensor in self._given if tensor.shape == made.shape), made)
        self._given = []
