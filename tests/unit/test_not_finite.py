"""Weights and statistics that are not finite are refused by their names, whatever is checked."""

import pytest
import torch
import torchvision
from torch import nn

import prunekit
from prunekit.errors import PrunekitError
from prunekit.registry import scorer as criterion_named


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


CRITERIA = [None, "disturbed_taylor", "wanda", "activation", "saliency", "fisher", "taylor", "obd"]


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2)).eval()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("scorer", CRITERIA)
def test_a_sample_is_refused_by_its_number(scorer, value):
    model, data = layers(), [torch.randn(1, 4) for _ in range(3)]
    data[1][0, 2] = value
    made = criterion_named(scorer) if scorer else None
    if scorer in ("fisher", "taylor", "obd"):
        made = type(made)(loss=lambda output, target: output.square().mean())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(PrunekitError, match="calibration sample 1"):
        prunekit.prune(model, torch.randn(1, 4), data=data, scorer=made, ratio=0.5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "asked",
    [{"allocation": "measured", "target": "params<=70%"}, {"compensate": "ridge"}, {"compensate": "ridge-in-order"}],
)
def test_data_that_is_measured_or_fitted_on_is_looked_at(asked):
    data = [torch.randn(1, 4) for _ in range(3)]
    data[1][0, 2] = float("nan")
    with pytest.raises(PrunekitError):
        prunekit.prune(layers(), torch.randn(1, 4), data=data, scorer="magnitude", **asked)


@pytest.mark.parametrize("scorer", ["damage", "block_influence"])
def test_a_sample_is_refused_where_blocks_are_scored(scorer):
    class Stream(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(layers() for _ in range(3))
            for block in self.blocks:
                block[2] = nn.Linear(16, 4)

        def forward(self, x):
            for block in self.blocks:
                x = x + block(x)
            return x

    data = [torch.randn(1, 4) for _ in range(3)]
    data[1][0, 2] = float("nan")
    with pytest.raises(PrunekitError, match="calibration sample 1"):
        prunekit.prune(Stream(), torch.randn(1, 4), data=data, scorer=scorer, roles=["depth.mlp"], ratio=0.4)


class Rooted(nn.Module):
    """NaN for every negative number."""

    def __init__(self):
        super().__init__()
        self.first, self.root, self.last = nn.Linear(4, 16), Root(), nn.Linear(16, 2)

    def forward(self, x):
        return self.last(self.root(self.first(x)))


class Root(nn.Module):
    def forward(self, x):
        return x.sqrt()


@pytest.mark.parametrize("data", [None, [torch.randn(1, 4)]], ids=["generated", "given"])
def test_the_module_that_makes_nan_is_named(data):
    torch.manual_seed(0)
    with pytest.raises(PrunekitError, match="first in what root returns"):
        prunekit.prune(Rooted(), torch.randn(1, 4), data=data, ratio=0.5, verify="shapes")


def test_infinity_that_a_model_means_is_no_fault():
    class Masked(nn.Sequential):
        def forward(self, x):
            return super().forward(x).masked_fill(torch.tensor([True, False]), float("-inf"))

    model = Masked(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
    prunekit.prune(model, torch.randn(1, 4), data=[torch.randn(1, 4)], ratio=0.5, verify="shapes")
    assert model[0].out_features == 8


def test_what_a_model_makes_finite_is_no_fault():
    class Filled(nn.Sequential):
        def forward(self, x):
            return super().forward(x.nan_to_num())

    model, data = Filled(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2)).eval(), torch.full((1, 4), float("nan"))
    prunekit.prune(model, torch.randn(1, 4), data=[data], ratio=0.5)
    assert model[0].out_features == 8
