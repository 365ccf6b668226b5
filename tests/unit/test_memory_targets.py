"""Activations and the cache as quantities of a target."""

from __future__ import annotations

import contextlib

import pytest
import torch
from support.compare import differences, snapshot
from torch import nn

import prunekit
from prunekit.errors import BudgetError, InputError
from prunekit.inputs.values import tensors_in
from prunekit.quantities.lifetimes import peak_activations

X = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))


class Attention(nn.Module):
    """Keys and values are appended to what came back."""

    def __init__(self, width=16, heads=4):
        super().__init__()
        self.heads, self.head = heads, width // heads
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x, past):
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        if past is not None:
            k, v = (torch.cat(pair, 2) for pair in zip(past, (k, v), strict=True))
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).flatten(2)), (k, v)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(16), Attention()
        self.mlp = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))

    def forward(self, x, past=None):
        y, kept = self.attention(self.norm(x), past)
        x = x + y
        return x + self.mlp(x), kept


class Decoder(nn.Module):
    """Returns what it kept by the name under which it takes it."""

    def __init__(self):
        super().__init__()
        self.blocks, self.last = nn.ModuleList([Block() for _ in range(3)]), nn.Linear(16, 7)

    def forward(self, x, past=None, remember=True):
        kept = []
        for at, block in enumerate(self.blocks):
            x, mine = block(x, None if past is None else past[at])
            kept.append(mine)
        return {"scores": self.last(x), "past": tuple(kept)} if remember else {"scores": self.last(x)}


def decoder():
    torch.manual_seed(0)
    return Decoder().eval()


def cache_bytes(model, inputs):
    with torch.no_grad():
        return sum(t.numel() * t.itemsize for t in tensors_in(model(**inputs)["past"]))


def test_the_cache_is_what_is_returned_and_taken_back():
    model = decoder()
    assert prunekit.trace(model, {"x": X}).cost().kv_cache == cache_bytes(model, {"x": X})
    longer = {"x": X, "past": model(X)["past"]}
    assert (
        prunekit.trace(model, longer).cost().kv_cache == cache_bytes(model, longer) == 2 * cache_bytes(model, {"x": X})
    )
    assert prunekit.trace(model, {"x": X, "remember": False}).cost().kv_cache == 0


def test_a_limit_on_the_cache_narrows_heads_and_is_what_the_pruned_model_returns():
    model, inputs = decoder(), {"x": X}
    whole = cache_bytes(model, inputs)
    report = prunekit.prune(model, inputs, target="kv_cache<=60%", free_outputs=True, exclude=["last"], align=1).report
    assert report.kv_cache == {"before": whole, "after": cache_bytes(model, inputs)}
    assert report.kv_cache["after"] <= 0.6 * whole
    assert prunekit.trace(model, inputs).cost().kv_cache == report.kv_cache["after"]
    assert "kv_cache 3.84kB -> " in repr(report)
    again = model(X[:, :1], past=model(X)["past"])
    assert again["scores"].shape == (2, 1, 7)


def test_a_block_takes_its_part_of_the_cache_along():
    model, inputs = decoder(), {"x": X}
    whole = cache_bytes(model, inputs)
    structure = prunekit.trace(model, inputs)
    (group,) = [g for g in structure.depth.groups if g.role == "depth.block"]
    assert structure.cost({group.name: torch.tensor([0, 2])}).kv_cache == 2 * whole // 3


@pytest.mark.parametrize("inputs", [{"x": X, "remember": False}, {"x": X}], ids=["none returned", "heads are outputs"])
def test_where_there_is_no_cache_or_it_cannot_shrink_that_is_said(inputs):
    model = decoder()
    before = snapshot(model)
    kind, said = (InputError, "returns no cache") if len(inputs) > 1 else (BudgetError, "it is an output of the model")
    with pytest.raises(kind, match=said):
        prunekit.prune(model, inputs, target="kv_cache<=60%")
    assert not differences(before, snapshot(model))


class ByPosition(nn.Module):
    """Returns what it kept second, with weights of an attention and features beside; ``takes`` says what it takes."""

    def __init__(self, takes=True):
        super().__init__()
        torch.manual_seed(0)
        self.blocks, self.last, self.takes = nn.ModuleList([Block() for _ in range(2)]), nn.Linear(16, 7), takes
        self.extra = nn.Linear(16, 16)

    def forward(self, x, mask=None, past=None):
        kept = []
        for at, block in enumerate(self.blocks):
            x, mine = block(x, past[at] if past is not None and self.takes else None)
            kept.append(mine)
        alike = self.extra(x)  # both factors of one product: neither keys nor values
        weights = (alike @ alike.transpose(1, 2)).softmax(-1)
        return self.last(weights @ x), tuple(kept), (weights, alike)


def test_a_cache_returned_by_position_is_what_attention_reads_and_what_is_continued():
    model = ByPosition().eval()
    result = model(X)
    whole = sum(t.nbytes for t in tensors_in(result[1]))
    structure = prunekit.trace(model, X)
    assert structure.cost().kv_cache == whole
    longer = prunekit.trace(model, {"x": X, "past": result[1]})
    assert longer.cost().kv_cache == 2 * whole
    report = prunekit.prune(model, X, target="kv_cache<=60%", free_outputs=True, include="blocks.*", align=1).report
    assert report.kv_cache == {"before": whole, "after": sum(t.nbytes for t in tensors_in(model(X)[1]))}
    assert report.kv_cache["after"] <= 0.6 * whole
    assert model(X[:, :1], past=model(X)[1])[0].shape == (2, 1, 7)


def test_keys_and_values_that_no_argument_takes_back_are_no_cache_to_limit():
    model = ByPosition(takes=False).eval()
    before = snapshot(model)
    with pytest.raises(InputError, match=r"at 1\), and no argument of its own takes them back \(tried mask, past\)"):
        prunekit.prune(model, X, target="kv_cache<=60%", free_outputs=True)
    assert not differences(before, snapshot(model))


def test_a_required_argument_is_no_cache_though_it_is_returned():
    class Denoiser(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 16)

        def forward(self, sample, hint=None):
            return {"sample": self.layer(sample)}

    assert prunekit.trace(Denoiser(), X).cost().kv_cache == 0


def test_activations_are_counted_by_hand():
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(320, 3))
    # 2 x 5 x 64 of the first layer, rectified where they lie and flattened as a view, and then 2 x 3 of the last
    assert peak_activations(prunekit.trace(model, X), {}) == 4 * (2 * 5 * 64 + 2 * 3)


def test_attention_keeps_nothing_inside():
    def forward(self, q):
        return nn.functional.scaled_dot_product_attention(self.q(q), q, q)

    kind = type("Alone", (nn.Module,), {"forward": forward})
    model = kind()
    model.q = nn.Linear(8, 8)
    wide = torch.randn(1, 2, 100, 8)
    assert peak_activations(prunekit.trace(model, wide), {}) == 2 * wide.nbytes  # and not 100 x 100 scores


def test_activations_and_blocks_in_one_target_are_refused():
    model = decoder()
    before = snapshot(model)
    with pytest.raises(InputError, match="activations are followed through the operators that stay"):
        prunekit.prune(model, {"x": X}, target="activations<=80%", roles=["depth.block"])
    assert not differences(before, snapshot(model))


def test_both_hold_beside_a_count():
    model, inputs = decoder(), {"x": X}
    target = "activations<=90%, kv_cache<=60%, params<=80%"
    report = prunekit.prune(model, inputs, target=target, free_outputs=True, exclude=["last"], align=1).report
    for name, share in (("activations", 0.9), ("kv_cache", 0.6), ("params", 0.8)):
        pair = getattr(report, name)
        assert pair["after"] <= share * pair["before"]
    assert report.activations["after"] == peak_activations(prunekit.trace(model, inputs), {})
    assert prunekit.prune(decoder(), inputs, target="params<=80%").report.kv_cache is None


def test_units_are_bytes():
    model = decoder()
    most = cache_bytes(model, {"x": X}) / 2**10
    plan = prunekit.plan(model, {"x": X}, target=f"kv_cache<={0.6 * most}KiB", free_outputs=True, exclude=["last"])
    assert plan.cuts


def test_a_cache_that_its_library_reads_again_narrows_without_more_words():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    torch.manual_seed(0)
    model, inputs = (
        transformers.LlamaForCausalLM(config).eval(),
        {"input_ids": torch.arange(12)[None], "use_cache": True},
    )
    report = prunekit.prune(model, inputs, target="kv_cache<=60%").report
    with torch.no_grad():
        layers = model(**inputs).past_key_values.layers
    assert report.kv_cache["after"] == sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
    assert report.kv_cache["after"] <= 0.6 * report.kv_cache["before"] == 0.6 * 2 * 2 * 12 * 2 * 8 * 4


class Counting(ByPosition):
    """Counts its calls, draws numbers, and has norms that learn while it trains."""

    def __init__(self, takes):
        super().__init__(takes)
        self.norm, self.noise = nn.BatchNorm1d(5), nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x, mask=None, past=None):
        self.calls += 1
        return super().forward(self.noise(self.norm(x)), mask, past)


@pytest.mark.parametrize("takes", [True, False])
def test_asking_for_a_cache_leaves_a_training_model_and_the_random_state(takes):
    model = Counting(takes).train()
    before = snapshot(model)
    with contextlib.nullcontext() if takes else pytest.raises(InputError):
        prunekit.plan(model, X, target="kv_cache<=60%", free_outputs=True, include="blocks.*", align=1)
    assert not differences(before, snapshot(model))
