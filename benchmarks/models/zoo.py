"""Builds the rows of the list beside it: whole models of many libraries, as their users call them, with random weights.

An entry names what makes it (``make``, with ``args`` and ``with``; or a transformers ``class`` and ``config``), what it
is given (``image``, ``inputs``, or ``call``, one of the functions below), and what of its output is meant (``only``).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Entry = dict[str, Any]


class Only(nn.Module):
    """One output of a model: the other ones are no interface that has to keep its width."""

    def __init__(self, body: nn.Module, key: str) -> None:
        super().__init__()
        self.body, self.key = body, key

    def forward(self, *arguments: Any, **inputs: Any) -> Any:
        return getattr(self.body(*arguments, **inputs), self.key)


def build(entry: Entry) -> tuple[nn.Module, Any]:
    """The model in eval mode, and example inputs."""
    torch.manual_seed(0)
    if "config" in entry:
        library = importlib.import_module("transformers")
        config = _config(library, entry["config"], entry.get("with", {}))
        model = getattr(library, entry["class"])(config)
    else:
        package, name = entry["make"].rsplit(".", 1)
        model = getattr(importlib.import_module(package), name)(*entry.get("args", []), **entry.get("with", {}))
    if "only" in entry:
        model = Only(model, entry["only"])
    return model.eval(), make_inputs(entry)


def _config(library: Any, name: str, given: dict[str, Any]) -> Any:
    """A configuration; what is nested under a key ``NAMEConfig KEY`` is a configuration of its own."""
    arguments = {}
    for key, value in given.items():
        kind, _, inner = key.rpartition(" ")
        arguments[inner] = _config(library, kind, value) if kind else value
    return getattr(library, name)(**arguments)


def make_inputs(entry: Entry, batch: int = 1) -> Any:
    """A batch of images, or of tokens and whatever else the row names."""
    generator = torch.Generator().manual_seed(0)
    if "call" in entry:
        return CALLS[entry["call"]](generator, batch)
    if "inputs" in entry:
        return {name: _one(generator, batch, how) for name, how in entry["inputs"].items()}
    if "arguments" in entry:
        return tuple(_one(generator, batch, how) for how in entry["arguments"])
    return torch.randn([batch, *entry["image"]], generator=generator)


def _one(generator: torch.Generator, batch: int, how: list[Any]) -> Tensor:
    """``[shape]`` is random numbers, ``[shape, n]`` integers below ``n``, ``[shape, "ones"]`` ones of integers."""
    shape = [batch, *how[0]]
    if len(how) == 1:
        return torch.randn(shape, generator=generator)
    return (
        torch.ones(shape, dtype=torch.long)
        if how[1] == "ones"
        else torch.randint(1, how[1], shape, generator=generator)
    )


def _images(generator: torch.Generator, batch: int) -> tuple[list[Tensor]]:
    """What a detector of torchvision takes: images of sizes of their own."""
    return ([torch.rand(3, 96 + 32 * at, 128, generator=generator) for at in range(batch)],)


def _graph(generator: torch.Generator, batch: int) -> tuple[Tensor, Tensor]:
    """Nodes with 16 features and the edges between them; a batch is a larger graph."""
    nodes = 12 * batch
    return torch.randn(nodes, 16, generator=generator), torch.randint(0, nodes, (2, 40 * batch), generator=generator)


def _relations(generator: torch.Generator, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    x, edges = _graph(generator, batch)
    return x, edges, torch.randint(0, 3, (edges.shape[1],), generator=generator)


def _molecule(generator: torch.Generator, batch: int) -> tuple[Tensor, Tensor]:
    return torch.randint(1, 10, (8 * batch,), generator=generator), torch.randn(8 * batch, 3, generator=generator)


def _speech(generator: torch.Generator, batch: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 40, 24, generator=generator), torch.full((batch,), 40)


def _image_tokens(generator: torch.Generator, batch: int) -> dict[str, Tensor]:
    """Text with a picture of 4 x 4 patches in it, which stand for 4 tokens."""
    text = torch.randint(1, 100, (batch, 12), generator=generator)
    text[:, 1], text[:, 2:6], text[:, 6] = 112, 110, 113
    patches = torch.randn(16 * batch, 3 * 2 * 8 * 8, generator=generator)
    return {
        "input_ids": text,
        "pixel_values": patches,
        "image_grid_thw": torch.tensor([[1, 4, 4]] * batch),
        "mm_token_type_ids": (text == 110).long(),
    }


CALLS: dict[str, Callable[[torch.Generator, int], Any]] = {
    "images": _images,
    "image_tokens": _image_tokens,
    "graph": _graph,
    "relations": _relations,
    "molecule": _molecule,
    "speech": _speech,
}
