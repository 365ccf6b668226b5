"""Scoring runs a model and leaves it as it was."""

from __future__ import annotations

import pytest
import torch
from support.scoring import (
    CHANNELS,
    Conv,
    images,
    make,
)
from torch import nn

from prunekit.scorers import DisturbedTaylor, Statistics, Taylor


def snapshot(model: nn.Module):
    return (
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
        [p.requires_grad for p in model.parameters()],
        [p.grad for p in model.parameters()],
        [module.training for module in model.modules()],
        torch.get_rng_state(),
        getattr(model, "cache", None),
    )


def same(one, two) -> bool:
    return (
        all(torch.equal(a, b) for a, b in zip(one[0].values(), two[0].values(), strict=True))
        and one[1] == two[1]
        and all(a is b for a, b in zip(one[2], two[2], strict=True))
        and one[3] == two[3]
        and torch.equal(one[4], two[4])
        and one[5] == two[5]
    )


class Noisy(Conv):
    """Draws from the global RNG, counts its calls in a buffer and caches a derived tensor, as real models do."""

    def __init__(self):
        super().__init__()
        self.cache = {}

    def forward(self, x):
        torch.rand(3)
        if "b" not in self.cache:
            self.cache["b"] = self.b.bias.exp()
        return super().forward(x) + self.cache["b"]


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_of_the_model_changes(fails):
    model = make(Noisy)
    model.train()
    model.n.eval()
    model.a.weight.requires_grad_(False)
    model.b.weight.grad = torch.ones_like(model.b.weight)
    before = snapshot(model)
    calls = []

    def loss(output, target):
        calls.append(model.training)
        if fails and len(calls) == 2:
            raise ZeroDivisionError
        return nn.functional.cross_entropy(output, target)

    statistics = Statistics(model, images(3))
    if fails:
        with pytest.raises(ZeroDivisionError):
            Taylor(loss).score(CHANNELS, statistics)
    else:
        scores = Taylor(loss).score(CHANNELS, statistics)
        assert (scores > 0).all()
    assert calls[0] is False
    assert same(before, snapshot(model))


def test_a_cached_tensor_with_a_graph_is_computed_again():
    model = make(Noisy).eval()
    model(torch.zeros(1, 3, 8, 8)).sum().backward()  # its graph is gone now
    cached = model.cache["b"]
    assert (DisturbedTaylor().score(CHANNELS, Statistics(model, images(2))) > 0).all()
    assert model.cache["b"] is cached


def test_frozen_parameters_are_scored_and_no_grad_of_the_caller_does_not_matter():
    trainable, frozen = make(Conv), make(Conv).requires_grad_(False)
    expected = DisturbedTaylor().score(CHANNELS, Statistics(trainable, images(2)))
    with torch.no_grad():
        found = DisturbedTaylor().score(CHANNELS, Statistics(frozen, images(2)))
    assert torch.equal(expected, found)
