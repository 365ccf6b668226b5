"""Old and unusual ways to write what a forward does: none keeps a width from being pruned."""

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import prunekit

WAYS = {
    "x.new(size)": lambda x: x + x.new(x.size()).zero_(),
    "x.new(values)": lambda x: x * x.new([2.0]),
    "torch.Tensor(values)": lambda x: x * torch.Tensor([2.0]),
    "a tensor class by device": lambda x: x * (torch.cuda.FloatTensor if x.is_cuda else torch.FloatTensor)([2.0]),
    "a type by name": lambda x: x.type(torch.FloatTensor).type(x.type()),
    "a value in a text": lambda x: x * (1 if f"{x.mean():.2f}" else 2),
    "a part in a text": lambda x: x * (1 if f"{x} {x.shape}" else 2),
    "allclose": lambda x: x if torch.allclose(x, x) and x.allclose(x, atol=1e-3) else -x,
    "equal": lambda x: x if torch.equal(x, x) else -x,
    "item": lambda x: x * (x.abs().max().item() * 0 + 1),
    "numpy": lambda x: x * float(x.detach().cpu().numpy().mean() * 0 + 1),
    "numpy's root": lambda x: x / numpy.sqrt(x.shape[-1]),
    "a root of a tensor": lambda x: x / torch.sqrt(torch.tensor(x.shape[-1]).float()),
    "a list of parts": lambda x: torch.cat([part * 2 for part in torch.split(x, x.size(1) // 4, 1)], 1),
    "pairs of rows": lambda x: torch.stack([a + b * 0 for a, b in zip(x, x, strict=True)]),
    "sum()": lambda x: sum([x, F.relu(x)]),
    "as_strided": lambda x: x.as_strided(x.size(), x.stride()),
    "empty and copy": lambda x: torch.empty(x.shape).copy_(x),
}


ALLCLOSE = torch.allclose


class Way(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.up, self.down, self.way = nn.Linear(8, 16), nn.Linear(16, 4), way

    def forward(self, x):
        return self.down(self.way(self.up(x)))


@pytest.mark.parametrize("way", WAYS)
def test_a_way_to_write_it(way):
    torch.manual_seed(0)
    model, x = Way(WAYS[way]).eval(), torch.randn(2, 8)
    wanted = model(x)
    result = prunekit.prune(model, x, ratio=0.5, scorer="magnitude")
    assert model.up.out_features == 8
    assert result.report.verify["symmetry"] == "passed"
    result.undo()
    assert torch.equal(model(x), wanted)
    assert not {"type", "allclose"} & vars(torch.Tensor).keys()
    assert torch.allclose is ALLCLOSE
