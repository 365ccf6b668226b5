"""What a model whose latency is limited is run by: Python as it stands, torch.compile's code, or onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import nn

from prunekit.inputs import Inputs
from prunekit.quantities.compiled_code import Compiled
from prunekit.quantities.limits import RUNNER_NAMES
from prunekit.quantities.onnx_session import OnnxSession


class Runner(Protocol):
    """What makes one call of a model's forward pass, as it is run in earnest."""

    def prepared(self, model: nn.Module, inputs: Inputs) -> Callable[[], object]:
        """A call without arguments that runs ``model``, as it is now, on ``inputs``; compiling and the like is done.

        It is called while ``model`` is as it is now. Raises InputError or ExportError where the model cannot be run
        so here; ``model`` is left as it is.
        """
        ...


class Eager:
    """The operators one by one, as Python calls them."""

    def prepared(self, model: nn.Module, inputs: Inputs) -> Callable[[], object]:
        return lambda: model(*inputs.args, **inputs.kwargs)


RUNNERS: Mapping[str, Runner] = dict(zip(RUNNER_NAMES, (Eager(), Compiled(), OnnxSession()), strict=True))
