"""A model whose forward writes into its own weights runs, and they are what they were.

``nn.Embedding(max_norm=...)`` renormalises the rows that it looks up; others clip a weight before they use it, or count
in a tensor. To copy all tensors before each run would double the memory of every model for the sake of a few.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.modules.dispatching import DispatchMode
from prunekit.modules.holdings import held_by
from prunekit.modules.walk import named_modules, state_tensors
from prunekit.offloading import copied

# their schemas do not say that they write into running statistics
_NORMS = ("aten::native_batch_norm", "aten::cudnn_batch_norm", "aten::miopen_batch_norm")


class Originals:
    """Tensors as they are, each copied at the moment before an operator writes into it."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._held = [(t, t.detach()) for t in tensors if _memory_of(t) and not t.is_inference()]
        self._unwritten: dict[int, list[Tensor]] = {}
        self._copies: list[tuple[Tensor, Tensor]] = []
        for tensor, alias in self._held:
            self._unwritten.setdefault(_memory_of(tensor), []).append(alias)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that could be written."""
        return not self._held

    def before(self, func: Any, args: Any, kwargs: Any) -> None:
        """To be called before an operator runs."""
        for at, name in _written_by(func):
            given = args[at] if at < len(args) else (kwargs or {}).get(name)
            for tensor in given if isinstance(given, (list, tuple)) else [given]:
                if isinstance(tensor, Tensor):
                    self._keep(_memory_of(tensor))

    def keep_all(self) -> None:
        """Copies everything, where operators are not seen."""
        for storage in list(self._unwritten):
            self._keep(storage)

    def put_back(self) -> None:
        """Writes the copies back, and the memory that another was set in the place of; it may be done twice."""
        for tensor, alias in self._held:
            if (tensor.data_ptr(), tensor.shape) != (alias.data_ptr(), alias.shape):
                tensor.data = alias
        for alias, before in self._copies:
            if not torch.equal(alias, before):
                alias.copy_(before)

    def _keep(self, storage: int) -> None:
        with torch.utils._python_dispatch._disable_current_modes():
            self._copies += [(alias, copied(alias)) for alias in self._unwritten.pop(storage, ())]


def originals_of(
    model: nn.Module, besides: Collection[str] = (), modules: Sequence[tuple[str, nn.Module]] | None = None
) -> Originals:
    """Of parameters, buffers and plain tensors that modules hold; ``besides`` names those that may be written.

    ``modules`` are the model's ``named_modules``, where they are known.
    """
    modules = named_modules(model) if modules is None else modules
    state = state_tensors(model, modules)
    own = {id(tensor): tensor for name, tensor in state.items() if name not in besides}
    free = {id(state[name]) for name in besides if name in state}
    plain = {id(tensor): tensor for tensor in held_by(modules).tensors if id(tensor) not in free}
    return Originals({**own, **plain}.values())


@contextlib.contextmanager
def unwritten(
    model: nn.Module, besides: Collection[str] = (), modules: Sequence[tuple[str, nn.Module]] | None = None
) -> Iterator[None]:
    """Within the block forward may write into tensors of ``model``; afterwards they hold what they held."""
    with written_back(originals_of(model, besides, modules)):
        yield


@contextlib.contextmanager
def written_back(kept: Originals) -> Iterator[None]:
    """Within the block operators may write into ``kept``; afterwards they hold what they held.

    Every operator of the block is looked at, so it should hold the forward pass and nothing else.
    """
    if kept.is_empty:
        yield
        return
    try:
        with _WriteWatch(kept):
            yield
    finally:
        kept.put_back()


class _WriteWatch(DispatchMode):
    supports_higher_order_operators = True

    def __init__(self, kept: Originals) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kept = kept

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._kept.before(func, args, kwargs)
        return func(*args, **(kwargs or {}))


@functools.cache
def _written_by(func: Any) -> tuple[tuple[int, str], ...]:
    """Places and names of the arguments that an operator writes into."""
    schema = getattr(func, "_schema", None)
    if schema is None:
        return ()
    if schema.name in _NORMS:
        return ((3, "running_mean"), (4, "running_var"))
    named = enumerate(schema.arguments) if schema.is_mutable else ()
    return tuple((at, arg.name) for at, arg in named if arg.alias_info is not None and arg.alias_info.is_write)


def _memory_of(tensor: Tensor) -> int:
    """Where a tensor's memory begins; 0 where it has none of its own, as on the meta device."""
    if tensor.layout != torch.strided or tensor.is_meta:
        return 0
    try:
        return int(tensor.untyped_storage().data_ptr())
    except (RuntimeError, NotImplementedError):  # a subclass that wraps others
        return 0
