"""What a model's code remembers beyond the model (functools.lru_cache) is no stand-in after a trace."""

from __future__ import annotations

import functools

import pytest
import torch
from support.split_heads import joined, split
from torch import nn

import prunekit
from prunekit.errors import NothingToPruneError
from prunekit.modules import memos

try:
    from einops import rearrange
except ImportError:
    rearrange = None


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


class Attention(nn.Module):
    """Its file knows of no cache: the functions that it imports have one, in theirs."""

    def __init__(self, split, joined):
        super().__init__()
        self.split, self.joined = split, joined
        self.qkv, self.out, self.heads = nn.Linear(16, 96, bias=False), nn.Linear(32, 16), 4

    def forward(self, x):
        q, k, v = (self.split(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        return self.out(self.joined((q @ k.mT).softmax(-1) @ v))


def by_einops():
    return (
        lambda x, heads: rearrange(x, "b n (h d) -> b h n d", h=heads),
        lambda x: rearrange(x, "b h n d -> b n (h d)"),
    )


class Imported(nn.Module):
    """Layers of one size, so that what is remembered of the first fits the second."""

    def __init__(self, ways=(split, joined)):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(Attention(*ways) for _ in range(2))

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x


@pytest.mark.parametrize("einops", [False, True])
def test_sizes_that_an_imported_function_remembers_are_of_no_other_trace_and_of_no_other_layer(einops):
    if einops and rearrange is None:
        pytest.skip("needs pip install einops")
    ways = by_einops() if einops else (split, joined)
    net, x = Imported(ways).eval(), torch.randn(1, 5, 16)
    net(x)
    prunekit.trace(net, x)
    result = prunekit.prune(net, x, include=["layers.1.*"], ratio=0.5, scorer="magnitude")
    assert [net.layers[n].qkv.out_features for n in (0, 1)] == [96, 48]
    assert net(x).shape == (1, 5, 16)
    result.undo()
    prunekit.prune(Imported(ways).eval(), x, ratio=0.5, scorer="magnitude")
    assert net(torch.randn(2, 7, 16)).shape == (2, 7, 16)


class Bare(nn.Module):
    """No module is called between its caller's last line and its own first split."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(32, 16)), nn.Parameter(torch.randn(16, 32))

    def forward(self, x):
        return joined(split(x @ self.up.T, 4)) @ self.down.T


class Before(nn.Module):
    """What is remembered of its own sizes fits the layer that it calls then."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down, self.layer = nn.Linear(16, 32), nn.Linear(32, 16), Bare()

    def forward(self, x):
        own = joined(split(self.up(x), 4))
        inner = self.layer(x)
        return self.down(own) + inner


def test_sizes_that_a_caller_remembers_are_not_those_of_what_it_calls():
    net, x = Before().eval(), torch.randn(1, 5, 16)
    prunekit.prune(net, x, include=["layer.*"], ratio=0.5, scorer="magnitude")
    assert (net.up.out_features, len(net.layer.up)) == (32, 16)
    assert net(x).shape == (1, 5, 16)


def test_a_full_cache_that_holds_another_entry_is_looked_at_again():
    """Of one entry: its number does not change when a size takes the place of a word."""

    @functools.lru_cache(maxsize=1)
    def remembered(key):
        return key

    memo = memos._memo_of(remembered)
    for key, left in [("word", 1), ("other", 1), (3, 0), ("word", 1), ((2, "word"), 0), (True, 1)]:
        remembered(key)
        memos.forget_sizes([memo])
        assert remembered.cache_info().currsize == left, key


class Lazy:
    """What a library puts where an import failed: every attribute is the error (MONAI)."""

    def __getattr__(self, name):
        raise ImportError("it is not installed")


absent = Lazy()


def test_what_an_import_that_failed_left_is_not_asked():
    assert prunekit.prune(Imported().eval(), torch.randn(1, 5, 16), ratio=0.5, scorer="magnitude").plan.cuts


_SHAPES = {}


def hidden(shape, heads):
    """A cache that no one can find: a trace is told by its own numbers that these are of another one."""
    key = tuple(map(int, shape)), heads
    if key not in _SHAPES:
        _SHAPES[key] = (*shape[:2], heads, shape[2] // heads)
    return _SHAPES[key]


def test_a_size_of_another_trace_is_a_number():
    ways = (lambda x, heads: x.reshape(hidden(x.shape, heads)).transpose(1, 2), joined)
    net, x = Imported(ways).eval(), torch.randn(1, 5, 16)
    prunekit.trace(net, x)
    with pytest.raises(NothingToPruneError, match="qkv"):
        prunekit.plan(net, x, ratio=0.5, scorer="magnitude")
    assert net(x).shape == (1, 5, 16)
