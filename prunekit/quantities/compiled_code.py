"""torch.compile as what runs a model."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import nn

from prunekit.errors import InputError
from prunekit.inputs import Inputs
from prunekit.modules.snapshot import sharing_copy

_ENTRIES = 4096  # versions of one function; beyond its own limit Dynamo runs it eagerly, with no more than a warning


class Compiled:
    """What ``torch.compile(model)`` makes of a model by its default backend, at the shapes of the inputs.

    A copy is compiled, which shares the parameters. Several plans of one model are versions of the same functions to
    Dynamo: without ``dynamic=False`` the second one would be compiled for any widths and be slower than alone.
    """

    def prepared(self, model: nn.Module, inputs: Inputs) -> Callable[[], object]:
        from torch._dynamo import config  # takes a second to import

        try:
            compiled = torch.compile(sharing_copy(model), dynamic=False)
            run = _Default(lambda: compiled(*inputs.args, **inputs.kwargs))
            with (
                warnings.catch_warnings(),
                torch.no_grad(),
                config.patch(recompile_limit=_ENTRIES, accumulated_recompile_limit=_ENTRIES),
            ):
                warnings.simplefilter("ignore")  # the compiler's own, of its moving parts
                run()
                run()  # what the first run has left behind may ask for a version of its own
        except Exception as error:  # whatever Dynamo, a backend and the model's code raise
            raise _as_input_error(error, type(model).__name__) from error
        return run


class _Default:
    """A call under Dynamo's default stance: around a prune call of a compiled model it is to run nothing compiled."""

    def __init__(self, run: Callable[[], object]) -> None:
        self._run = run

    def __call__(self) -> object:
        with torch.compiler.set_stance("default"):
            return self._run()


def _as_input_error(error: Exception, model: str) -> InputError:
    if "InvalidCxxCompiler" in f"{type(error).__name__}: {error}":
        return InputError(
            "torch.compile finds no C++ compiler here",
            where="target",
            hint="install g++, or name one in the variable CXX; latency<= times the model without compiling it",
        )
    first = next(iter(str(error).strip().splitlines()), "")
    return InputError(
        f"torch.compile cannot run {model}: {type(error).__name__}: {first}",
        where="target",
        hint="latency<= times the model without compiling it",
    )
