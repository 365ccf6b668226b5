"""Second moments of rows: sums that are added to a batch at a time, and which rows are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from prunekit.inputs import Inputs, map_tensors
from prunekit.modules.observing import Product, as_matrix

EXACT = 512  # features up to which products of rows are summed in float64


@dataclass(eq=False)
class Gram:
    """Sums over rows x of G independent products: x x^T (G, K, K), x (G, K), and how many rows, float64."""

    xx: Tensor | None = None
    x: Tensor | None = None
    rows: int = 0

    def add(self, x: Tensor) -> None:
        """Takes rows (G, R, K) in."""
        if not x.shape[1]:
            return
        x = x.double() if x.shape[2] <= EXACT else x.float()
        xx, total = (x.transpose(1, 2) @ x).double(), x.sum(1, dtype=torch.float64)
        self.xx = xx if self.xx is None else self.xx.add_(xx)
        self.x = total if self.x is None else self.x.add_(total)
        self.rows += x.shape[1]


def added(a: Gram, b: Gram) -> Gram:
    """The sums over the rows of both."""
    if a.xx is None or a.x is None or b.xx is None or b.x is None:
        return a if b.xx is None else b
    return Gram(a.xx + b.xx, a.x + b.x, a.rows + b.rows)


@dataclass(frozen=True, eq=False)
class Split:
    """Sums over the rows that a strength is tried on, and over those that it is judged by."""

    tried: Gram = field(default_factory=Gram)
    held: Gram = field(default_factory=Gram)


def about(gram: Gram, number: int, mean: Tensor) -> Tensor:
    """(K, K): second moments of product ``number`` about ``mean`` (K,)."""
    assert gram.xx is not None
    assert gram.x is not None
    cross = torch.outer(gram.x[number], mean)
    return gram.xx[number] - cross - cross.t() + gram.rows * torch.outer(mean, mean)


def lies_in_plan(product: Product, weight: Tensor) -> bool:
    """Whether this way of reading a parameter can be refitted: matrices, experts side by side, convolutions."""
    return weight.ndim != 3 or product.settings is not None or weight.shape[0] == len(as_matrix(product, weight))


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


def bias_of(product: Product, weights: Mapping[str, nn.Parameter]) -> nn.Parameter | None:
    """What is added to the outputs of a product: the bias that its module holds beside the weight."""
    name = f"{product.name.removesuffix('weight')}bias"
    bias, outputs = weights.get(name), weights[product.name].shape[product.output_axis]
    return bias if bias is not None and name != product.name and bias.shape == (outputs,) else None
