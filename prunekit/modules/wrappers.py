"""What stands around a model, and what cannot be cut: unwrapped where that is safe, else refused at once."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from prunekit.errors import InputError
from prunekit.modules.fetching import fetching_hooks
from prunekit.modules.process_wide import ProcessWide
from prunekit.modules.walk import named_modules, state_tensors

logger = logging.getLogger(__name__)

_QUANTIZED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.ao.nn.sparse.quantized")


def unwrap(model: nn.Module) -> nn.Module:
    """The module to prune: ``model`` itself, or what ``torch.compile`` or ``DataParallel`` hold.

    Raises:
        InputError: if ``model`` is no module, or holds parameters that cannot be cut in place: sharded, quantised,
            compiled to TorchScript, not initialised yet, or registered with a process group.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"{type(model).__name__} is not a torch.nn.Module", hint="pass the model itself")
    while (inner := _inner(model)) is not None:
        logger.warning("pruning the %s inside the %s", type(inner).__name__, type(model).__name__)
        model = inner
    modules = named_modules(model)
    for path, module in modules:
        _check_module(path, module)
    for name, tensor in state_tensors(model, modules).items():
        _check_tensor(name, tensor)
    return model


def _inner(model: nn.Module) -> nn.Module | None:
    found = model._orig_mod if _is_compiled(model) else model.module if isinstance(model, nn.DataParallel) else None
    return found if isinstance(found, nn.Module) else None


def _is_compiled(module: nn.Module) -> bool:
    dynamo = sys.modules.get("torch._dynamo")  # importing it takes a second; who compiled a module has done so
    return dynamo is not None and isinstance(module, dynamo.OptimizedModule)


def _check_module(path: str, module: nn.Module) -> None:
    kind = type(module)
    where = path or "the model"
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(
            f"{kind.__name__} is TorchScript with weights, whose attributes are fixed",
            where=where,
            hint="prune the Python module, then script or trace it",
        )
    if isinstance(module, nn.parallel.DistributedDataParallel):
        raise InputError(
            "DistributedDataParallel keeps hold of the parameters that it was built with",
            where=where,
            hint="prune its .module on every rank with the same data and seed, then wrap it again",
        )
    if kind.__module__.startswith("torch.distributed.fsdp"):
        raise InputError(
            f"{kind.__name__} holds sharded parameters",
            where=where,
            hint="prune the model, then shard it; docs/offloading.md has the way there for one that is sharded already",
        )
    if next(fetching_hooks(module), None) is not None:
        raise InputError(
            "accelerate fetches its weights for each call",
            where=where,
            hint="call prunekit.fetched(model) first, within prunekit.offloaded where memory is short",
        )
    if kind.__module__.startswith(_QUANTIZED):
        raise InputError(
            f"{kind.__module__}.{kind.__name__} holds packed, quantised weights",
            where=where,
            hint="prune the floating-point model, then quantise it",
        )


def _check_tensor(name: str, tensor: Tensor) -> None:
    if nn.parameter.is_lazy(tensor):
        raise InputError(
            "a lazy module has no weights yet", where=name, hint="run the model once on example inputs, then prune it"
        )
    wrapped: bool = is_traceable_wrapper_subclass(tensor)
    if wrapped:
        raise InputError(
            f"it is a {type(tensor).__name__}, which cannot be cut in place",
            where=name,
            hint="prune the plain model, then shard or quantise it",
        )


@contextlib.contextmanager
def eager() -> Iterator[None]:
    """What is compiled, a model, parts of it, or functions that it calls, runs eagerly inside: nothing is compiled for
    a few looks at it, and what a mode is to see is not hidden from it.

    A caller's ``torch.inference_mode`` is left meanwhile: under it operators reach a trace in other pieces, and weights
    that are cut could never be trained again.
    """
    with contextlib.ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if "torch._dynamo" in sys.modules:  # else nothing can have been compiled, and the import would take a second
            stack.enter_context(_nothing_compiled())
        yield


_nothing_compiled = ProcessWide(lambda: torch.compiler.set_stance("force_eager"))
