"""What a stage will need is counted before its first step, and what would fit is named."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from prunekit.coupling.groups import Tap
from prunekit.errors import RecipeError
from prunekit.recipes import COMMON, Distil, Term
from prunekit.recipes.records import Training
from prunekit.runs.distillation import memory
from prunekit.runs.distillation.memory import counted, need, preflight

TAPS = {"f": (Tap("blocks.0.0", "output"),)}
STAGE = Distil("align", (Term("f", roles=("x",), aligning=True), Term("output")))
X = torch.zeros(1, 16, 32)


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)) for _ in range(4)])

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return x


def settings(**changes):
    return Training.of({**COMMON, "teacher_cache": "off", **changes})


def test_what_autograd_keeps_is_counted_by_hand():
    one = counted(Stack(), X, TAPS)
    row = 16 * 4  # bytes a feature
    # of a block: its input of 32, what the GELU read and gave, 64 each; the same tensor is counted once
    assert one.kept == 4 * row * (32 + 64 + 64)
    assert one.blocks == one.kept
    assert one.block == row * (32 + 64 + 64)
    assert (one.features, one.outputs, one.inputs) == (row * 64, row * 32, 4 * row * 32)


def test_what_is_counted_is_what_a_real_pass_keeps():
    model, kept = Stack(), {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        output = model(X)
    assert sum(kept.values()) == counted(model, X, TAPS).kept
    assert output.requires_grad


def test_the_model_is_left_as_it_was():
    model = Stack().train()
    before, inside = copy.deepcopy(model.state_dict()), [dict(vars(m)) for m in model.modules()]
    counted(model, X, TAPS)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [dict(vars(m)) for m in model.modules()] == inside
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_settings_that_save_memory_need_less():
    model, one = Stack(), counted(Stack(), X, TAPS)
    plain = need(model, one, settings(batch=4), 10, 1)
    for change in ({"batch": 1}, {"checkpointing": True}, {"precision": "bf16"}):
        assert need(model, one, settings(**{"batch": 4, **change}), 10, 1).activations < plain.activations
    cached = need(model, one, settings(batch=4, teacher_cache="memory"), 10, 2)
    assert cached.cache == 2 * 10 * (one.features + one.outputs)
    assert plain.cache == 0


@pytest.mark.parametrize(
    ("free", "hint"),
    [(0.75, "batch=1"), (0.0, "no setting would fit")],
)
def test_too_little_memory_is_refused_with_what_would_fit(monkeypatch, free, hint):
    model = Stack()
    wanted = need(model, counted(model, X, TAPS), settings(batch=4), 10, 1)
    monkeypatch.setattr(memory, "available", lambda device: int(free * wanted.total))
    with pytest.raises(RecipeError, match="are free") as caught:
        preflight(model, STAGE, X, TAPS, settings(batch=4), 10)
    assert hint in caught.value.hint
    monkeypatch.setattr(memory, "available", lambda device: wanted.total)
    assert preflight(model, STAGE, X, TAPS, settings(batch=4), 10) == wanted


def test_a_forward_that_reads_values_is_not_counted():
    class Reads(nn.Linear):
        def forward(self, x):
            return super().forward(x) * (1 if float(x.sum()) > 0 else 2)

    assert counted(Reads(32, 32), X, {}) is None
