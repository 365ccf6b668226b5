"""Plain tensors that an earlier forward left on a module are constants: they freeze nothing by themselves."""

import pytest
import torch
from torch import nn

import prunekit


class Anchored(nn.Module):
    """Remembers its grid for the size it saw last, as detection heads do."""

    def __init__(self):
        super().__init__()
        self.stem, self.box, self.out = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 1), nn.Conv2d(32, 4, 1)
        self.shape, self.anchors, self.strides = None, torch.empty(0), [torch.empty(0)]

    def forward(self, x):
        y = self.out(self.box(self.stem(x).relu()).relu()).flatten(2)
        if self.training:
            return y
        if self.shape != x.shape:
            self.shape = x.shape
            rows = torch.arange(x.shape[2] * x.shape[3], dtype=x.dtype, device=x.device)
            self.anchors, self.strides = rows.repeat(4, 1), [torch.full((1, 1), 8.0)]
        return (y + self.anchors.unsqueeze(0)) * self.strides[0]


@pytest.mark.parametrize("used", [False, True], ids=["new", "used before"])
def test_the_head_shrinks_also_after_a_forward(used):
    torch.manual_seed(0)
    model, x = Anchored().eval(), torch.rand(1, 3, 8, 8)
    if used:
        model(x)
    kept = model.anchors
    mark = set(vars(kept))
    model.train()
    result = prunekit.prune(model, x, ratio=0.5)
    assert model.training
    assert (model.stem.out_channels, model.box.out_channels) == (8, 16)
    assert model.anchors is kept
    assert set(vars(kept)) == mark, "something was written on the model's own tensor"
    model(torch.rand(2, 3, 6, 10))
    assert model.eval()(torch.rand(2, 3, 6, 10)).shape == (2, 4, 60)
    result.undo()
    assert model.stem.out_channels == 16
