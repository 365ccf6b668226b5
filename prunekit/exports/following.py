"""A model followed by torch.export, for batches of any size where its code allows that."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from prunekit.errors import ExportError
from prunekit.inputs import Inputs, map_tensors


def followed(part: nn.Module, inputs: Inputs) -> tuple[Any, tuple[int, ...]]:
    """The program, and the batch sizes to try it with."""
    two = repeated(inputs, 2)  # a batch of one would be taken for a constant
    try:
        program = _export(part, two, _any_batch(part, two))
    except Exception:  # code that takes a single batch size fails in as many ways as there is code
        program = None
    if program is not None and _takes_any_batch(program):
        return program, (1, 3)
    try:
        return _export(part, inputs, None), (1,)
    except Exception as error:  # whatever the model's code and the checks of torch.export raise
        first = next(iter(str(error).splitlines()), "")
        raise ExportError(
            f"torch.export cannot follow the model: {type(error).__name__}: {first}",
            where=type(part).__name__,
            hint="its forward must not decide by values; prunekit.load gives the model itself",
        ) from error


def _export(part: nn.Module, inputs: Inputs, shapes: Any) -> Any:
    with torch.no_grad():
        return torch.export.export(part, inputs.args, inputs.kwargs, dynamic_shapes=shapes, strict=False)


def _any_batch(part: nn.Module, inputs: Inputs) -> dict[str, Any]:
    """The first axis of every tensor is left open, per argument name."""
    bound = inspect.signature(part.forward).bind(*inputs.args, **inputs.kwargs).arguments
    shapes: dict[str, Any] = tree_map(lambda x: {0: torch.export.Dim.AUTO} if _has_batch(x) else None, dict(bound))
    return shapes


def _takes_any_batch(program: Any) -> bool:
    names = set(program.graph_signature.user_inputs)
    values = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    return all(isinstance(value.shape[0], torch.SymInt) for value in values if _has_batch(value))


def _has_batch(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def repeated(inputs: Inputs, batch: int) -> Inputs:
    """Inputs of ``batch`` rows out of inputs of one, all different."""

    def rows(x: Tensor) -> Tensor:
        return torch.cat([x.roll(row, -1) for row in range(batch)]) if x.ndim else x

    return Inputs(map_tensors(inputs.args, rows), map_tensors(inputs.kwargs, rows))
