"""Products with parameters, as they are seen while a model runs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunekit.modules.observing import Product, as_matrix, observed, outputs_of, rows_of


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(4, 6), (2, 3, 4)),
        (nn.Linear(4, 6, bias=False), (5, 4)),
        (nn.Conv2d(4, 6, 3, padding=1, stride=2), (2, 4, 7, 5)),
        (nn.Conv2d(4, 6, 1, stride=2), (2, 4, 7, 5)),
        (nn.Conv2d(4, 6, (3, 2), groups=2, dilation=2, padding=2), (2, 4, 7, 5)),
        (nn.Conv1d(4, 6, 3, padding=1), (2, 4, 7)),
    ],
    ids=str,
)
@torch.no_grad()
def test_products_are_rows_times_a_matrix(module, shape):
    seen = []
    x = torch.randn(shape)
    with observed(module, after=lambda product, output: seen.append((product, output))):
        module(x)
    (product, output), weight = seen[0], module.weight
    places = torch.tensor([0, 3, 4])
    for at in (None, places):
        data, matrix, wanted = rows_of(product, weight, at), as_matrix(product, weight), outputs_of(product, output, at)
        bias = 0 if module.bias is None else module.bias.view(product.groups, 1, -1)
        torch.testing.assert_close(data @ matrix.transpose(1, 2) + bias, wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_parts_of_a_fused_projection_and_experts_are_seen():
    class Fused(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(6, 4))
            self.t = nn.Parameter(torch.randn(4, 6))
            self.e = nn.Parameter(torch.randn(2, 4, 3))

        def forward(self, x):
            q, k = self.w.chunk(2)
            return x @ q.t(), nn.functional.linear(x, k), x @ self.t, torch.bmm(torch.stack([x, x]), self.e)

    model, seen = Fused(), []
    x = torch.randn(5, 4)
    with observed(model, after=lambda product, output: seen.append((product, output))):
        model(x)
    assert [(p.name, p.start, p.outputs, p.feature_axis) for p, _ in seen] == [
        ("w", 0, 3, 1),
        ("w", 3, 3, 1),
        ("t", 0, 6, 0),
        ("e", 0, 3, 1),
    ]
    for product, output in seen:
        assert isinstance(product, Product)
        matrix = as_matrix(product, dict(model.named_parameters())[product.name])
        torch.testing.assert_close(rows_of(product, matrix) @ matrix.transpose(1, 2), outputs_of(product, output))
