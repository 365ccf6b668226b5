"""Penalties for a training loop of one's own, and subnets for a search with a score of one's own."""

import pytest
import torch
from support.compare import differences, snapshot
from torch import nn

import prunekit
from prunekit.errors import InputError, RecipeError


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 4, 3)]
    return nn.Sequential(*layers).eval(), torch.randn(2, 3, 8, 8)


def trained(model, x, penalty, steps=40):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(steps):
        optimizer.zero_grad()
        penalty((step + 1) / steps).backward()
        optimizer.step()


def norms(model):
    return model[0].weight.detach().flatten(1).norm(dim=1)


def test_growing_draws_only_the_units_that_go():
    model, x = network()
    structure = prunekit.trace(model, x)
    plan = prunekit.plan(model, x, structure=structure, ratio=0.5)
    before = norms(model)
    trained(model, x, prunekit.sparsity_penalty("growing", model, structure, plan))
    kept = list(plan.widths[0].kept)
    gone = [k for k in range(32) if k not in kept]
    torch.testing.assert_close(norms(model)[kept], before[kept])
    assert bool((norms(model)[gone] < 0.8 * before[gone]).all())


@pytest.mark.parametrize("kind", ["group_lasso", "batch_norm_scale"])
def test_the_others_draw_on_all(kind):
    model, x = network()
    penalty = prunekit.sparsity_penalty(kind, model, prunekit.trace(model, x))
    before = float(penalty(1.0).detach())
    trained(model, x, penalty)
    assert float(penalty(1.0).detach()) < 0.8 * before


def test_what_cannot_be_asked_for():
    model, x = network()
    structure = prunekit.trace(model, x)
    with pytest.raises(RecipeError, match="unknown penalty"):
        prunekit.sparsity_penalty("l2", model, structure)
    with pytest.raises(RecipeError, match="takes no unit"):
        prunekit.sparsity_penalty("growing", model, structure)
    other = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(InputError, match="has no group"):
        prunekit.sparsity_penalty("growing", model, structure, prunekit.plan(other, torch.randn(1, 4), ratio=0.5))


def test_a_search_over_subnets_leaves_the_model_as_it_was():
    model, x = network()
    structure = prunekit.trace(model, x)
    before = snapshot(model)
    best = None
    for seed in range(4):
        plan = prunekit.plan(model, x, structure=structure, ratio=0.5, scorer=prunekit.Random(seed=seed))
        with prunekit.applied(model, plan) as subnet, torch.no_grad():
            assert subnet[0].out_channels == 16
            score = float(subnet(x).square().mean())
        best = max(best or (score, plan), (score, plan), key=lambda pair: pair[0])
    assert differences(before, snapshot(model)) == []
    with pytest.raises(ZeroDivisionError), prunekit.applied(model, best[1]):
        raise ZeroDivisionError
    assert differences(before, snapshot(model)) == []
