"""Follows the modules of a forward pass; one whose own control flow depends on values is recorded as one operator.

A mixture of experts, for example, looks at the routing result before it decides which expert runs. Without data that
cannot be followed, but it need not be: the innermost such module runs once on its real weights and on random inputs
of the right shapes, and everything that it reads or writes stays whole.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map

from prunekit.errors import PrunekitError, TraceError
from prunekit.graph.nodes import ModuleCall, Op, Ref
from prunekit.graph.tree import meta_tensors
from prunekit.modules.calls import Plain, calls_through
from prunekit.modules.memos import forget_sizes
from prunekit.modules.write_guard import unwritten
from prunekit.tracing.modes import DataDependentError
from prunekit.tracing.tape import Entered, Recording

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opaque:
    """Stands where an ATen operator would: a whole module, followed from the outside only."""

    overloadpacket: str = "prunekit.opaque"
    tags: tuple[Any, ...] = ()


OPAQUE = Opaque()


@contextlib.contextmanager
def module_calls(r: Recording) -> Iterator[None]:
    """Inside the context every module call is written down in ``r``."""

    def call(plain: Plain, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if r.paused:
            return plain(module, *args, **kwargs)
        path = r.paths.get(id(module), r.module)
        r.stack.append(path)
        forget_sizes(r.memos)
        if not r.brief:
            r.entered.append(Entered(sys._getframe()))
        try:
            if path in r.opaque and id(module) in r.paths:
                output = _from_outside(r, module, path, plain, args, kwargs, "")
            else:
                output = _followed(r, module, path, plain, args, kwargs)
        except BaseException:
            r.failed_in = r.failed_in or path
            raise
        finally:
            r.stack.pop()
            forget_sizes(r.memos)
            if not r.brief:
                r.entered.pop()
        if not r.brief:
            with torch._C.DisableTorchFunction():  # a look at a tensor here is no call of the model's
                _write_down(r, module, path, args, kwargs, output)
        return output

    with calls_through(call, r.paths):
        yield


def _write_down(r: Recording, module: nn.Module, path: str, args: Any, kwargs: Any, output: Any) -> None:
    leaf = not any(child is not None for child in module._modules.values())
    inputs = tuple([r.ref(t) for t in meta_tensors(args[:1])])
    outputs = tuple([r.ref(t) for t in meta_tensors(output)])
    whole = leaf and not kwargs and len(args) == 1
    given = inputs if whole else tuple([r.ref(t) for t in meta_tensors((args, kwargs))])
    r.trace.modules.append(ModuleCall(path, leaf, inputs, outputs, given, _form(output)))


def _form(output: Any) -> tuple[str, ...]:
    if isinstance(output, Tensor):
        return ("tensor",)
    if type(output) not in (tuple, list):
        return ()
    entries = ["tensor" if isinstance(x, Tensor) else "none" if x is None else "" for x in output]
    return (type(output).__name__, *entries) if all(entries) else ()


def _followed(r: Recording, module: nn.Module, path: str, plain: Any, args: Any, kwargs: Any) -> Any:
    mark = len(r.trace.ops), len(r.trace.calls), len(r.trace.modules)
    depth = len(r.stack)
    try:
        return plain(module, *args, **kwargs)
    except Exception as error:
        if r.brief or r.numbers is not None or path == "" or not _needs_values(error) or id(module) not in r.paths:
            raise
        del r.trace.ops[mark[0] :], r.trace.calls[mark[1] :], r.trace.modules[mark[2] :]
        del r.stack[depth:]
        r.call, r.failed_in = None, ""
        reason = error.where if isinstance(error, TraceError) else f"{type(error).__name__}: {error}"
        try:
            output = _from_outside(r, module, path, plain, args, kwargs, reason)
        except Exception as again:  # it does not run on random inputs either: the module around it may
            logger.debug("%s does not run on random inputs: %s", path, again)
            raise error from again
        r.opaque.add(path)
        r.trace.opaque[path] = reason
        return output


def _needs_values(error: Exception) -> bool:
    """Whether forward may have failed for want of numbers. torch's kernels for the meta device say so in no one way;
    if real numbers do not help either, the error is the model's own."""
    return isinstance(error, DataDependentError) or not isinstance(error, PrunekitError)


def _from_outside(r: Recording, module: nn.Module, path: str, plain: Any, args: Any, kwargs: Any, reason: str) -> Any:
    own = {f"{path}.{n}" if path else n for n in _state_names(module)}
    read = [r.ref(t) for t in meta_tensors((args, kwargs))]
    read += [ref for name, ref in r.trace.state.items() if name in own or _shared(r, module, name)]
    real = _on_numbers(r, module, plain, args, kwargs)
    outputs: list[Ref] = []

    def to_meta(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        meta = torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device="meta")
        outputs.append(r.new_ref(meta, "computed"))
        return meta

    with _disable_current_modes(), torch._C.DisableTorchFunction():
        result = tree_map(to_meta, real)
    r.trace.ops.append(Op(OPAQUE, (path, *read), {}, tuple(outputs), None, path, reason, tuple(read)))
    return result


def _state_names(module: nn.Module) -> list[str]:
    return [n for n, _ in [*module.named_parameters(), *module.named_buffers()]]


def _shared(r: Recording, module: nn.Module, name: str) -> bool:
    """Whether a state tensor that another module names first is also held by ``module``."""
    meta = r.foreign.get(id(r.real[name]))
    return any(t is meta for t in (*module.parameters(), *module.buffers()))


def _on_numbers(r: Recording, module: nn.Module, plain: Any, args: Any, kwargs: Any) -> Any:
    """The module's real output for random inputs; known values are passed as they are."""
    if any(t.is_meta for t in r.real.values()):
        raise DataDependentError(
            "the forward pass reads a value that depends on the input or the weights",
            where=r.module,
            hint="the model is on the meta device and has no values; plan it on a real device",
        )
    by_meta = {id(meta): r.real[n] for n in r.real if (meta := r.foreign.get(id(r.real[n]))) is not None}
    device = next((t.device for t in r.real.values()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)

    def to_real(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_meta:
            return leaf
        if id(leaf) in by_meta:
            return by_meta[id(leaf)].detach()
        value = r.ref(leaf).value
        if value is None and leaf.is_floating_point():
            value = torch.randn(leaf.shape, generator=generator, device="cpu").to(leaf.dtype)
        elif value is None:
            value = torch.ones(leaf.shape, dtype=leaf.dtype, device="cpu")
        return value.clone().to(device)

    r.paused = True
    try:
        with _disable_current_modes(), torch._C.DisableTorchFunction(), _real_state(module, by_meta), unwritten(module):
            real_args, real_kwargs = tree_map(to_real, (args, kwargs))
            return plain(module, *real_args, **real_kwargs)
    finally:
        r.paused = False


@contextlib.contextmanager
def _real_state(module: nn.Module, by_meta: dict[int, Tensor]) -> Iterator[None]:
    """Inside the context ``module`` holds its real tensors again, in the place of stand-ins."""
    stores = [s for m in module.modules() for s in (m._parameters, m._buffers)]
    before: list[dict[str, Any]] = [dict(s) for s in stores]
    try:
        for store in stores:
            for name, tensor in store.items():
                if tensor is not None and id(tensor) in by_meta:
                    store[name] = by_meta[id(tensor)]  # type: ignore[assignment]
        yield
    finally:
        for store, content in zip(stores, before, strict=True):
            store.update(content)
