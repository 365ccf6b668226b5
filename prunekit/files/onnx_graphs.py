"""Models as ONNX files, by torch's own exporter."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunekit.errors import ExportError

OPSET = 20  # what onnxruntime and OpenVINO both read; no operator of another domain is used


def write_graph(
    model: nn.Module | torch.export.ExportedProgram,
    file: Path,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    hint: str,
) -> None:
    """Writes ``model``, called with these arguments, as ``file``. Raises ExportError, with ``hint``, if that fails."""
    known: dict[str, Any] = {"dynamo": True, "opset_version": OPSET, "verbose": False}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's own, of its moving parts
            torch.onnx.export(model, args, str(file), kwargs=dict(kwargs or {}), **known)
    except Exception as error:  # whatever the model's code, the exporter and its converters raise
        first = next(iter(str(error).strip().splitlines()), "")
        raise ExportError(f"torch.onnx cannot write the model: {type(error).__name__}: {first}", hint=hint) from error
