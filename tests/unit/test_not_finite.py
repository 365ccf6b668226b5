"""Weights and statistics that are not finite are refused by their names, whatever is checked."""

import pytest
import torch
import torchvision
from torch import nn

import prunekit
from prunekit.errors import PrunekitError


def group_normed():
    return nn.Sequential(nn.Conv1d(3, 16, 3), nn.GroupNorm(4, 16), nn.Conv1d(16, 4, 1)).eval()


CASES = [
    (torchvision.models.resnet18, torch.randn(1, 3, 64, 64), "layer2.0.conv1.weight", float("nan")),
    (torchvision.models.resnet18, torch.randn(1, 3, 64, 64), "layer1.0.bn1.running_var", float("inf")),
    (torchvision.models.resnet18, torch.randn(1, 3, 64, 64), "bn1.running_mean", float("nan")),
    (group_normed, torch.randn(1, 3, 9), "1.weight", float("-inf")),
    (group_normed, torch.randn(1, 3, 9), "2.weight", float("nan")),
]


@pytest.mark.parametrize("verify", ["auto", "shapes"])
@pytest.mark.parametrize(("make", "x", "name", "value"), CASES, ids=[case[2] for case in CASES])
def test_it_is_refused_by_name(make, x, name, value, verify):
    model = make().eval()
    with torch.no_grad():
        model.state_dict()[name].view(-1)[3] = value
    with pytest.raises(PrunekitError) as caught:
        prunekit.prune(model, x, ratio=0.5, verify=verify)
    assert name in str(caught.value)


def test_a_mask_of_infinities_is_no_fault():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 16), nn.Linear(16, 2)
            self.register_buffer("mask", torch.triu(torch.full((3, 3), float("-inf")), 1))

        def forward(self, x):
            return self.last(self.first((self.mask.softmax(-1)) @ x).relu())

    result = prunekit.prune(Masked(), torch.randn(2, 3, 4), ratio=0.5)
    assert result.report.verify["symmetry"] == "passed"
