"""onnxruntime as what runs a model."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunekit.errors import InputError
from prunekit.files.onnx_graphs import write_graph
from prunekit.inputs import Inputs, tensors_in
from prunekit.modules.snapshot import sharing_copy


class OnnxSession:
    """A session of onnxruntime on the CPU, of the model exported at the shapes of the inputs; as many threads as torch.

    Only the tensors of the inputs are given to it, in their order; all other arguments are part of the file.
    """

    def prepared(self, model: nn.Module, inputs: Inputs) -> Callable[[], object]:
        given = [tensor.detach() for tensor in tensors_in(inputs)]
        if any(tensor.device.type != "cpu" for tensor in (*model.parameters(), *given)):
            raise InputError(
                "latency[onnx] is that of onnxruntime on the CPU, and the model is not there",
                where="target",
                hint="move model and inputs to the CPU, or limit latency or latency[compiled]",
            )
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            _exported(model, inputs, file)
            session = _session(file)
        names = [each.name for each in session.get_inputs()]
        if len(names) != len(given):
            raise InputError(
                f"the ONNX file of {type(model).__name__} takes {len(names)} tensors, and the inputs have {len(given)}",
                where="target",
                hint="leave out what the model does not read, or limit latency",
            )
        values = {name: tensor.numpy() for name, tensor in zip(names, given, strict=True)}
        return lambda: session.run(None, values)


def _session(file: Path) -> Any:
    runtime = _needed("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _exported(model: nn.Module, inputs: Inputs, file: Path) -> None:
    for library in ("onnx", "onnxscript", "onnxruntime"):
        _needed(library)
    write_graph(sharing_copy(model), file, inputs.args, inputs.kwargs, hint="limit latency or latency[compiled]")


def _needed(library: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise InputError(
            f"latency[onnx] needs {library}: {error}", where="target", hint="pip install 'prunekit[onnx]'"
        ) from error
