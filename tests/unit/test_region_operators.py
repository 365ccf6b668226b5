"""Deformable convolutions, regions and windows shrink, exactly; a stride that is written as a number is found."""

import copy

import pytest
import torch
from torch import nn
from torchvision.ops import DeformConv2d, roi_align

import prunekit
from prunekit.errors import PrunekitError


class Deform(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.offset = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 18, 3, padding=1)
        self.deform, self.head = DeformConv2d(16, 24, 3, padding=1), nn.Conv2d(24, 5, 1)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head(self.deform(x, self.offset(x)).relu())


class Regions(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16 * 4, 5)
        self.register_buffer("boxes", torch.tensor([[0.0, 1, 1, 6, 6], [0, 2, 0, 7, 5]]))

    def forward(self, x):
        return self.head(roi_align(self.stem(x).relu(), self.boxes, 2).flatten(1))


class Windows(nn.Module):
    def __init__(self, literal=False):
        super().__init__()
        self.first, self.last, self.literal = nn.Linear(3, 16), nn.Linear(16, 5), literal

    def forward(self, x):
        y = self.first(x).relu().contiguous()
        step = 32 if self.literal else 2 * y.stride(1)
        strides = (y.stride(0), step, y.stride(1), 1)
        return self.last(y.as_strided((y.size(0), 3, 4, y.size(2)), strides))


CASES = {
    "deformable": (Deform, torch.randn(2, 3, 9, 9), "deform.weight:0", "head"),
    "regions": (Regions, torch.randn(1, 3, 9, 9), "stem.weight:0", None),
    "windows": (Windows, torch.randn(2, 8, 3), "first.weight:0", "last"),
}


@pytest.mark.parametrize("name", CASES)
def test_it_shrinks_and_is_the_masked_model(name):
    make, x, group, reader = CASES[name]
    torch.manual_seed(0)
    model = make().eval()
    masked = copy.deepcopy(model)
    plan = prunekit.plan(model, x, ratio=0.5, include=[group])
    (width,) = [w for w in plan.widths if w.group == group]
    assert width.after * 2 == width.before
    gone = [unit for unit in range(width.before) if unit not in width.kept]
    with torch.no_grad():
        if reader is None:
            masked.head.weight.view(5, 16, 4)[:, gone] = 0
        else:
            masked.get_submodule(reader).weight[:, gone] = 0
    prunekit.apply(model, plan)
    torch.testing.assert_close(model(x), masked(x))


def test_a_stride_that_is_a_number_is_refused():
    with pytest.raises(PrunekitError, match="stride"):
        prunekit.prune(Windows(literal=True).eval(), torch.randn(2, 8, 3), ratio=0.5)
