"""What a model's code remembers beyond the model (functools.lru_cache) is no stand-in after a trace."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

import prunekit


@functools.lru_cache(maxsize=4)
def places(count):
    return torch.arange(count) % 3


def as_method(function):
    """A decorator of the kind that libraries have: the cache is in the closure of what it gives."""
    cached = functools.lru_cache(maxsize=2)(function)

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return cached(*args, **kwargs)

    return wrapper


class Biased(nn.Module):
    """A bias per place, looked up by an index that is remembered by the sizes alone."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.table = nn.Parameter(torch.randn(3, 8))
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    @as_method
    def index(self, count):
        return torch.arange(count) % 3

    @functools.lru_cache  # noqa: B019  as libraries have it
    def plain(self, count):
        return torch.arange(count) % 3

    def forward(self, x):
        count = int(x.shape[1])
        index = {"wrapped": self.index, "plain": self.plain, "function": places}[self.kind](count)
        return self.down(torch.relu(self.up(x + self.table[index])))


@pytest.mark.parametrize("kind", ["wrapped", "plain", "function"])
@pytest.mark.parametrize("ran", [False, True])
def test_a_model_that_was_traced_is_the_model_that_it_was(kind, ran):
    torch.manual_seed(0)
    net, x = Biased(kind).eval(), torch.randn(1, 5, 8)
    places.cache_clear()
    want = net.down(torch.relu(net.up(x + net.table[torch.arange(5) % 3])))
    if ran:
        net(x)
    prunekit.trace(net, x)
    torch.testing.assert_close(net(x), want, rtol=0, atol=0)
    result = prunekit.prune(net, x, ratio=0.5, scorer="magnitude")
    assert result.report.params["after"] < result.report.params["before"]
    want = net.down(torch.relu(net.up(x + net.table[torch.arange(5) % 3])))
    torch.testing.assert_close(net(x), want, rtol=0, atol=0)


def test_relative_positions_that_are_remembered_by_the_window_alone():
    hf = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    config = hf.BeitConfig(**sizes, image_size=32, patch_size=8, use_relative_position_bias=True)
    net, x = hf.BeitModel(config).eval(), torch.randn(1, 3, 32, 32)
    prunekit.trace(net, {"pixel_values": x})
    traced = net(pixel_values=x).last_hidden_state
    torch.manual_seed(0)
    fresh = hf.BeitModel(config).eval()
    fresh.load_state_dict(net.state_dict())
    assert bool(traced.isfinite().all())
    assert torch.equal(fresh(pixel_values=x).last_hidden_state, traced)
