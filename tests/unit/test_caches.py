"""Calls with objects in and out: caches that a call writes into, outputs of any nesting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
import transformers
from support.compare import differences, snapshot
from support.whole import built, check, frozen
from torch import Tensor, nn

import prunekit
from prunekit.inputs import Inputs
from prunekit.inputs.values import map_tensors, tensors_in

IDS = torch.arange(24).reshape(2, 12) % 40


def llama():
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=40, n_positions=32, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


def filled(heads):
    cache = transformers.DynamicCache()
    for layer in range(2):
        cache.update(torch.randn(2, heads, 3, 8), torch.randn(2, heads, 3, 8), layer)
    return cache


@pytest.mark.parametrize(("make", "heads"), [(llama, 2), (gpt2, 4)])
def test_a_cache_that_is_returned_keeps_its_heads_and_the_rest_shrinks(make, heads, monkeypatch):
    monkeypatch.setattr("prunekit.registry.homes.discover", lambda: ())  # who knows the library says that it is its own
    torch.manual_seed(0)
    model = make().eval()
    before = snapshot(model)
    result = prunekit.prune(model, {"input_ids": IDS, "use_cache": True})
    assert result.report.verify["symmetry"] == "passed"
    attention = [f for f in result.plan.frozen if "attn" in f.name]
    assert attention
    assert {f.reason for f in attention} == {"it is an output of the model"}
    assert {f.where for f in attention} <= {
        f"past_key_values.layers.{i}.{k}" for i in (0, 1) for k in ("keys", "values")
    }
    out = model(input_ids=IDS[:, :5], use_cache=True)
    assert out.past_key_values.layers[0].keys.shape == (2, heads, 5, 8)
    step = model(input_ids=IDS[:, 5:6], past_key_values=out.past_key_values, use_cache=True)
    whole = model(input_ids=IDS[:, :6])
    assert torch.allclose(step.logits[:, -1], whole.logits[:, -1], atol=1e-5)
    result.undo()
    assert [k for k in differences(before, snapshot(model)) if k != "rng"] == []


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_cache_that_its_library_reads_again_shrinks_with_the_heads(make):
    torch.manual_seed(0)
    model = make().eval()
    before = snapshot(model)
    result = prunekit.prune(model, {"input_ids": IDS, "use_cache": True})
    assert result.report.verify["symmetry"] == "passed"
    assert any(w.role.startswith("attention.") for w in result.plan.widths)
    out = model(input_ids=IDS[:, :5], use_cache=True)
    step = model(input_ids=IDS[:, 5:6], past_key_values=out.past_key_values, use_cache=True)
    assert torch.allclose(step.logits[:, -1], model(input_ids=IDS[:, :6]).logits[:, -1], atol=1e-5)
    result.undo()
    assert [k for k in differences(before, snapshot(model)) if k != "rng"] == []


@pytest.mark.parametrize(("make", "heads"), [(llama, 2), (gpt2, 4)])
def test_a_cache_that_is_passed_is_left_as_it_came(make, heads):
    torch.manual_seed(0)
    model, cache = make().eval(), filled(heads)
    keys = [layer.keys for layer in cache.layers]
    values = [k.clone() for k in keys]
    result = prunekit.prune(model, {"input_ids": IDS, "past_key_values": cache, "use_cache": True})
    assert result.report.verify["symmetry"] == "passed"
    assert result.report.params["after"] < result.report.params["before"]
    assert all(layer.keys is k for layer, k in zip(cache.layers, keys, strict=True))
    assert all(torch.equal(k, v) for k, v in zip(keys, values, strict=True))
    out = model(input_ids=IDS, past_key_values=cache, use_cache=True)
    assert out.logits.shape == (2, 12, 40)
    assert out.past_key_values.get_seq_length() == 15


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_cache_inside_the_model_shrinks_with_its_heads(make):
    class Continued(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = make()

        def forward(self, ids):
            first = self.model(ids[:, :6], use_cache=True)
            return self.model(ids[:, 6:], past_key_values=first.past_key_values, use_cache=True).logits

    _, plan, _ = check(Continued, IDS, IDS[:1], dtype=torch.float32)
    assert "attention.head_dim" in {w.role for w in plan.widths}


def test_a_cache_in_an_attribute_is_put_back():
    class Remembering(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
            self.memory = {}

        def forward(self, x):
            y = F.relu(self.a(x))
            self.memory["last"] = y
            return self.head(F.relu(self.b(self.memory["last"])))

    model, x = built(Remembering), torch.randn(2, 6).double()
    model(x)
    memory, last = model.memory, model.memory["last"]
    result = prunekit.prune(model, x)
    assert (model.a.weight.shape, model.memory) == ((4, 6), {})  # what it held is of the old width
    result.undo()
    assert model.memory is memory
    assert memory == {"last": last}


@dataclass
class Record:
    scores: Tensor
    features: Tensor | None = None
    more: dict = field(default_factory=dict)


class Pair(NamedTuple):
    first: Tensor
    rest: tuple


class Structured(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 10), nn.Linear(10, 3)
        self.shape = shape

    def forward(self, x, hidden=None, *, options=None):
        y = F.relu(self.b(F.relu(self.a(x if hidden is None else x + hidden["more"][0]))))
        out = self.c(y)
        return {
            "record": lambda: Record(out, None, {"twice": (2 * out, None)}),
            "named": lambda: Pair(out, (None, [out + 1])),
            "nested": lambda: {"a": [out, {"b": (out, None)}], "none": None, "number": 3},
            "features": lambda: Record(out, y),
        }[self.shape]()


@pytest.mark.parametrize("shape", ["record", "named", "nested", "features"])
def test_outputs_of_any_nesting(shape):
    x = torch.randn(2, 6).double()
    inputs = {"x": x, "hidden": {"more": [x, None]}, "options": {"flag": True, "name": "any"}}
    model, plan, structure = check(lambda: Structured(shape), inputs)
    names = [w.group for w in plan.widths]
    if shape == "features":  # what is returned keeps its width
        assert "it is an output of the model" in frozen(structure, "b.weight:0")
        assert names == ["a.weight:0"]
    else:
        assert names == ["a.weight:0", "b.weight:0"]
    assert type(model(**inputs)) is type(built(lambda: Structured(shape))(**inputs))


class Store:
    def __init__(self):
        self.rows, self.count, self.inner = [torch.ones(2)], 1, {"deep": (torch.zeros(3), "text")}


def test_objects_with_tensors_are_handed_out_as_copies():
    store, plain, x = Store(), object(), torch.ones(1)
    inputs = Inputs((x, store, plain), {"nested": [store], "text": "text"})
    assert inputs.args[0] is x
    assert inputs.args[2] is plain
    for _ in range(2):
        handed = inputs.args[1]
        assert type(handed) is Store
        handed.rows.append(torch.ones(9))
        handed.count += 1
        assert inputs.kwargs["nested"][0].count == 1
    assert (len(store.rows), store.count) == (1, 1)
    assert inputs.args[1].rows[0] is store.rows[0]
    doubled = map_tensors(inputs, lambda t: 2 * t)
    assert doubled.args[1].inner["deep"][1] == "text"
    assert torch.equal(doubled.args[1].rows[0], torch.full((2,), 2.0))
    assert torch.equal(store.rows[0], torch.ones(2))
    assert next(tensors_in(inputs)) is x


def test_objects_that_refer_to_themselves_are_no_trap():
    store = Store()
    store.itself = store
    plain = Store()
    plain.rows, plain.inner, plain.itself = [], {}, plain
    inputs = Inputs((store, plain))
    assert inputs.args[0] is not store
    assert inputs.args[1] is plain


class Watched(nn.Module):
    """Registers hooks, and a module, when forward first runs, as libraries do that collect hidden states."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)
        self.watched = False

    def forward(self, x):
        seen = []
        if not self.watched:
            self.watched = True
            self.add_module("late", nn.ReLU())
            self.a.register_forward_hook(lambda module, args, out: self.seen.append(out))
        self.seen = seen
        x = self.late(self.a(x))
        assert len(seen) == 1, "the hook runs once"
        return self.b(x)


def test_hooks_that_forward_registers_are_put_back():
    torch.manual_seed(0)
    model, x = Watched(), torch.randn(2, 6)
    for _ in range(2):
        prunekit.trace(model, x)
        assert (len(model.a._forward_hooks), model.watched, "late" in model._modules) == (0, False, False)
    prunekit.prune(model, x, verify="full")
    assert model(x).shape == (2, 3)
    assert model.a.out_features == 8
