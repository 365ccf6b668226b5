"""Builds the rows of the list beside it: small models, with random weights, of libraries that the other lists lack."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

Entry = dict[str, Any]


class Pair(nn.Module):
    """Encoder and decoder of x-transformers as one forward: their own returns a loss."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body

    def forward(self, source: Tensor, target: Tensor) -> Any:
        return self.body.decoder.net(target, context=self.body.encoder(source, return_embeddings=True))


class First(nn.Module):
    """The first output of a module, read by another: the others are a loss and indices."""

    def __init__(self, body: nn.Module, then: nn.Module) -> None:
        super().__init__()
        self.body, self.then = body, then

    def forward(self, x: Tensor) -> Any:
        return self.then(self.body(x)[0])


def build(entry: Entry) -> tuple[nn.Module, Any]:
    """The model in eval mode, and example inputs."""
    torch.manual_seed(0)
    if "pair" in entry:
        model: nn.Module = Pair(_made(entry["pair"]))
    elif "first" in entry:
        model = First(_made(entry["first"]), _made(entry["then"]))
    else:
        model = _made(entry)
    return model.eval(), make_inputs(entry)


def make_inputs(entry: Entry, batch: int = 1) -> tuple[Tensor, ...]:
    """One tensor for every shape that the row names: normal, zeros, or tokens below the number behind the shape."""
    generator = torch.Generator().manual_seed(0)

    def one(how: Any) -> Tensor:
        if isinstance(how, dict):
            return torch.zeros([batch, *how["zeros"]], dtype=getattr(torch, how.get("dtype", "float32")))
        if isinstance(how[0], list):
            return torch.randint(0, how[1], [batch, *how[0]], generator=generator)
        return torch.randn([batch, *how], generator=generator)

    return tuple(one(how) for how in entry["inputs"])


def _made(value: Any) -> Any:
    """What the values of JSON stand for: a dict with ``make`` is a call, a list a tuple, one in ``list`` a list."""
    if isinstance(value, list):
        return tuple(_made(v) for v in value)
    if isinstance(value, dict) and "list" in value:
        return value["list"]
    if not isinstance(value, dict) or "make" not in value:
        return value
    named = {key: _made(v) for key, v in value.get("with", {}).items()}
    return _found(value["make"])(*_made(value.get("args", [])), **named)


def _found(path: str) -> Any:
    """What a dotted path names: a module, as far as there is one, and attributes of it."""
    parts = path.split(".")
    for n in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError as error:
            if error.name is None or not path.startswith(error.name):
                raise
            continue
        for part in parts[n:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(f"no module {parts[0]}", name=parts[0])
