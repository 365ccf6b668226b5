"""Which places of a layer's output are fitted, and samples where a model is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunekit.inputs import Inputs, map_tensors
from prunekit.modules.observing import Product


def row_count(product: Product, output: Tensor) -> int:
    """Rows of one execution."""
    return output.shape[0] * output[0, 0].numel() if product.settings is not None else output.shape[-2]


def drawn_rows(rows: int, most: int, seed: int) -> Tensor:
    """At most ``most`` of ``rows`` rows, ascending; drawn at random where there are more."""
    if rows <= most:
        return torch.arange(rows, device="cpu")
    generator = torch.Generator("cpu").manual_seed(seed + rows)
    return torch.randperm(rows, generator=generator, device="cpu")[:most].sort().values


def on_device(inputs: Inputs, model: nn.Module) -> Inputs:
    """The inputs where the model's first parameter is."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    moved: Inputs = map_tensors(inputs, lambda t: t.to(device))
    return moved
