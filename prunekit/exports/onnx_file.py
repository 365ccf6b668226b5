"""``onnx``: the pruned part as one ONNX file, run by onnxruntime beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from prunekit.exports.agreement import agreeing
from prunekit.exports.following import followed, repeated
from prunekit.exports.requirements import only_fp32, optional
from prunekit.files.onnx_graphs import write_graph
from prunekit.inputs import Inputs, infer, tensors_in
from prunekit.plugins.formats import Compared

if TYPE_CHECKING:
    from prunekit.plans.bundle import Bundle

FILE = "model.onnx"
INSTALL = "onnx onnxruntime onnxscript"


def onnx_format(bundle: Bundle, folder: Path, precisions: Sequence[str]) -> Sequence[Compared]:
    """Any model: ``folder/model.onnx``, by torch's dynamo exporter.

    It takes any batch size where the part's code allows it, else batches of one; weights of more than 2 GB lie beside
    it. onnxruntime runs it at two batch sizes, and the outputs are compared. Raises ExportError where the part cannot
    be followed, an operator has no ONNX counterpart, or the file gives something else.
    """
    only_fp32(precisions, "onnx")
    part = bundle.model.get_submodule(bundle.part).eval()
    return onnx_of(part, infer(part), folder / FILE)


def onnx_of(part: nn.Module, inputs: Inputs, file: Path) -> list[Compared]:
    """Writes ``part`` as ``file`` and compares onnxruntime's outputs with its own. Raises what ``onnx`` raises."""
    for library in ("onnx", "onnxscript", "onnxruntime"):
        optional(library, INSTALL)
    program, batches = followed(part, inputs)
    write_graph(program, file, hint="use --to exported")
    session = optional("onnxruntime", INSTALL).InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return [found for batch in batches for found in _agree_at(part, session, repeated(inputs, batch), batch)]


def _agree_at(part: nn.Module, session: Any, inputs: Inputs, batch: int) -> list[Compared]:
    with torch.no_grad():
        wanted = list(tensors_in(part(*inputs.args, **inputs.kwargs)))
    names = [each.name for each in session.get_inputs()]
    values = [tensor.numpy() for tensor in tensors_in((inputs.args, inputs.kwargs))]
    given = session.run(None, dict(zip(names, values, strict=True)))
    pairs = zip(wanted, given, strict=True)
    return [
        agreeing(f"{FILE}: output {number} at batch {batch}", one, torch.from_numpy(other))
        for number, (one, other) in enumerate(pairs)
    ]
