"""Builds the rows of the list beside it: models that the shared list does not hold, small, with random weights."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

Entry = dict[str, Any]


class Only(nn.Module):
    """One output of a model: the other ones are no interface that has to keep its width."""

    def __init__(self, body: nn.Module, key: str) -> None:
        super().__init__()
        self.body, self.key = body, key

    def forward(self, **inputs: Tensor) -> Any:
        return getattr(self.body(**inputs), self.key)


def build(entry: Entry) -> tuple[nn.Module, Any]:
    """The model in eval mode, and example inputs."""
    torch.manual_seed(0)
    if "config" in entry:
        library = importlib.import_module("transformers")
        config = getattr(library, entry["config"])(**entry.get("with", {}))
        model = getattr(library, entry["class"])(config)
    else:
        package, name = entry["make"].rsplit(".", 1)
        model = getattr(importlib.import_module(package), name)(*entry.get("args", []), **entry.get("with", {}))
    if "only" in entry:
        model = Only(model, entry["only"])
    return model.eval(), make_inputs(entry)


def make_inputs(entry: Entry, batch: int = 1) -> Any:
    """A batch of images, or of tokens and whatever else the row names."""
    generator = torch.Generator().manual_seed(0)

    def one(shape: list[int], high: int | None = None) -> Tensor:
        shape = [batch, *shape]
        if high is None:
            return torch.randn(shape, generator=generator)
        return torch.randint(1, high, shape, generator=generator)

    if "inputs" in entry:
        return {name: one(*how) for name, how in entry["inputs"].items()}
    return one(entry["image"])
