"""Weights that are computed from others: norms, parametrizations and masks are followed, or frozen by name."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils as utils
from support.compare import differences, snapshot
from support.whole import check, frozen
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import prunekit
from prunekit.errors import NothingToPruneError

X, OTHER = torch.randn(2, 6).double(), torch.randn(5, 6).double()
IMAGE, LARGER = torch.randn(2, 3, 8, 8).double(), torch.randn(3, 3, 9, 9).double()


class MLP(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.a, self.b, self.c = (wrap(layer) for layer in (nn.Linear(6, 8), nn.Linear(8, 10), nn.Linear(10, 3)))

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.a(x)))))


class Convs(nn.Module):
    def __init__(self, wrap=lambda layer: layer, norm=None):
        super().__init__()
        self.a, self.b = wrap(nn.Conv2d(3, 8, 3, padding=1)), wrap(nn.Conv2d(8, 6, 3, padding=1))
        self.norm, self.c = norm or nn.Identity(), nn.Linear(6, 3)

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.norm(self.a(x))))).mean((2, 3)))


class Gain(nn.Module):
    def __init__(self, rows):
        super().__init__()
        self.gain = nn.Parameter(torch.rand(rows, 1) + 0.5)

    def forward(self, weight):
        return self.gain * weight


class Positive(nn.Module):
    def forward(self, weight):
        return weight.exp()


class Triangular(nn.Module):
    def forward(self, weight):
        return weight.tril()


def masked_at_random(layer):
    prune.random_unstructured(layer, "weight", 0.3)
    return layer


def masked_by_rows(layer):
    prune.ln_structured(layer, "weight", 0.25, n=2, dim=0)
    prune.l1_unstructured(layer, "weight", 0.2)
    return layer


def gained(layer):
    return parametrize.register_parametrization(layer, "weight", Gain(layer.weight.shape[0]))


def positive(layer):
    return parametrize.register_parametrization(layer, "weight", Positive())


def old_weight_norm(layer):
    return utils.weight_norm(layer)


# how a layer is wrapped, and whether a removed unit at zero in the stored weights is zero in the layer
WRAPS = {
    "spectral norm": (parametrizations.spectral_norm, True),
    "weight norm": (parametrizations.weight_norm, False),
    "a gain of one's own": (gained, True),
    "a function that never is zero": (positive, False),
}
HOOKED = {
    "old weight norm": (old_weight_norm, False),
    "old spectral norm": (utils.spectral_norm, False),
    "mask": (masked_at_random, False),
    "masks on masks": (masked_by_rows, False),
}


@pytest.mark.parametrize("name", WRAPS)
def test_parametrized_layers_shrink_in_what_they_are_computed_from(name):
    wrap, by_mask = WRAPS[name]
    model, plan, _ = check(lambda: MLP(wrap), X, OTHER, by_mask=by_mask)
    assert [(w.before, w.after) for w in plan.widths] == [(8, 4), (10, 5)]
    assert [tuple(layer.weight.shape) for layer in (model.a, model.b, model.c)] == [(4, 6), (5, 4), (3, 5)]
    assert all(parametrize.is_parametrized(layer) for layer in (model.a, model.b, model.c))


@pytest.mark.parametrize("name", [n for n in WRAPS if n != "a gain of one's own"])
def test_parametrized_convolutions_shrink(name):
    wrap, by_mask = WRAPS[name]
    model, _, _ = check(lambda: Convs(wrap), IMAGE, LARGER, by_mask=by_mask)
    assert model.b.weight.shape == (3, 4, 3, 3)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("name", HOOKED)
def test_weights_that_a_hook_computes_show_their_new_size_at_once(name):
    wrap, _ = HOOKED[name]
    torch.manual_seed(0)
    model = MLP(wrap).double()
    before, stored = snapshot(model), model.b.weight
    result = prunekit.prune(model, X)
    assert result.report.verify["symmetry"] == "passed"
    assert [tuple(layer.weight.shape) for layer in (model.a, model.b, model.c)] == [(4, 6), (5, 4), (3, 5)]
    shown = model.eval().b.weight.detach().clone()
    assert model(OTHER).shape == (5, 3)
    assert torch.equal(shown, model.b.weight)
    model(X).sum().backward()
    model.zero_grad(set_to_none=True)
    result.undo()
    model.train()
    assert model.b.weight is stored
    assert [k for k in differences(before, snapshot(model)) if k != "rng"] == []


def test_the_mask_of_a_pruned_layer_shrinks_with_it():
    torch.manual_seed(0)
    model = MLP(masked_by_rows).double()
    prunekit.prune(model, X)
    assert model.b.weight_mask.shape == model.b.weight_orig.shape == (5, 4)
    prune.remove(model.b, "weight")
    assert model.b.weight.shape == (5, 4)


def test_planning_takes_no_step_of_a_power_iteration():
    torch.manual_seed(0)
    model = MLP(parametrizations.spectral_norm).double().train()
    before = snapshot(model)
    prunekit.plan(model, X)
    assert differences(before, snapshot(model)) == []


def test_a_triangle_is_frozen_with_its_reason():
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))
    parametrize.register_parametrization(model[1], "weight", Triangular())
    _, plan, structure = check(lambda: model, X, OTHER)
    assert "a triangle of it is taken" in frozen(structure, "0.weight:0")
    assert [w.group for w in plan.widths] == ["2.weight:0"]


def test_an_orthogonal_weight_is_frozen_by_name():
    torch.manual_seed(0)
    model = MLP(parametrizations.orthogonal).double()
    before = snapshot(model)
    with pytest.raises(NothingToPruneError, match=r"a\.param.*original:0 \(8\): a triangle of it is taken"):
        prunekit.prune(model, X)
    assert differences(before, snapshot(model)) == []


def test_a_parametrized_layer_shows_its_new_width():
    model, _, _ = check(lambda: MLP(parametrizations.spectral_norm), X, OTHER)
    assert (model.b.in_features, model.b.out_features) == (4, 5)


NORMS = {
    "synchronised": lambda: nn.SyncBatchNorm(8),
    "without running statistics": lambda: nn.BatchNorm2d(8, track_running_stats=False),
    "without weights": lambda: nn.BatchNorm2d(8, affine=False),
    "with nothing": lambda: nn.BatchNorm2d(8, affine=False, track_running_stats=False),
    "by instance": lambda: nn.InstanceNorm2d(8),
    "by instance, with everything": lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
    "by group": lambda: nn.GroupNorm(2, 8),
    "in one group": lambda: nn.GroupNorm(1, 8),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_of_every_kind_follow_their_channels(name):
    model, _, _ = check(lambda: Convs(norm=NORMS[name]()), IMAGE, LARGER)
    assert model.a.out_channels == 4


def test_a_norm_over_neighbouring_channels_freezes_them():
    model, _, structure = check(lambda: Convs(norm=nn.LocalResponseNorm(3)), IMAGE, LARGER)
    assert "a window slides over it [norm" in frozen(structure, "a.weight:0")
    assert (model.a.out_channels, model.b.out_channels) == (8, 3)
