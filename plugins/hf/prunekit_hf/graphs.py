"""``onnx`` for models of transformers: tensors in, tensors out, without the cache that generation keeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from prunekit.exports import only_fp32, onnx_of
from prunekit.inputs import Inputs, infer
from prunekit.plugins import Compared

if TYPE_CHECKING:
    from prunekit.plans import Bundle

FILE = "model.onnx"


class TensorsOnly(nn.Module):
    """A model that takes its inputs by name, and gives the tensors at the top of its output."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, tuple(names)
        self.fixed: dict[str, Any] = {"use_cache": False} if hasattr(model.config, "use_cache") else {}

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Inputs in the order of ``names``."""
        found = self.model(**dict(zip(self.names, inputs, strict=True)), **self.fixed)
        return tuple(value for value in found.values() if isinstance(value, Tensor))


def hf_onnx(bundle: Bundle, folder: Path, precisions: Sequence[str]) -> Sequence[Compared]:
    """Models of ``hf:``: ``folder/model.onnx``, without a cache; raises what the format of any model raises."""
    only_fp32(precisions, "onnx")
    model = bundle.model.train(False)
    given = {name: value for name, value in infer(model).kwargs.items() if isinstance(value, Tensor)}
    return onnx_of(TensorsOnly(model, tuple(given)).train(False), Inputs(tuple(given.values()), {}), folder / FILE)
