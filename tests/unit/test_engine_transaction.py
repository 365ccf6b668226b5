"""All or nothing: what fails leaves the model bit-identical; what is refused names its reason."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
import torch
from support.compare import differences, run, snapshot
from support.networks import build
from torch import nn

import prunekit
from prunekit.errors import InputError, NothingToPruneError, PlanError, ScorerError, VerificationError

applying = importlib.import_module("prunekit.surgery.cutting")


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.num_heads, self.head_dim = 2, 8
        self.norm, self.qkv, self.proj = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.head(x + self.proj(y.reshape(b, n, self.num_heads * self.head_dim)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Attention()


X = torch.randn(2, 5, 16)


@pytest.mark.parametrize("failing", ["_edit", "_replace_lists"])
@pytest.mark.parametrize("at", [1, 2])
def test_a_failure_half_way_leaves_everything_as_it_was(model, monkeypatch, failing, at):
    plan = prunekit.plan(model, X)
    assert len(plan.edits) >= at
    before, original, calls = snapshot(model), getattr(applying, failing), 0

    def breaking(*args):
        nonlocal calls
        calls += 1
        if calls == at:
            assert differences(before, snapshot(model)) != [] or failing == "_replace_lists"
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(applying, failing, breaking)
    with pytest.raises(KeyboardInterrupt):
        prunekit.apply(model, plan)
    assert calls == at
    assert differences(before, snapshot(model)) == []


def test_undo_works_once_and_puts_back_the_same_tensors(model):
    before, weights = snapshot(model), dict(model.named_parameters())
    result = prunekit.prune(model, X)
    assert result.model is model
    pruned = snapshot(model)
    assert differences(before, pruned)
    result.undo()
    assert differences(before, snapshot(model)) == []
    assert all(p is weights[name] for name, p in model.named_parameters())
    result.undo()
    assert differences(before, snapshot(model)) == []


def test_a_plan_for_another_structure_is_refused(model):
    plan = prunekit.plan(model, X)
    other = Attention()
    other.proj = nn.Linear(16, 16, bias=False)
    before = snapshot(other)
    with pytest.raises(PlanError, match="another structure"):
        prunekit.apply(other, plan)
    prunekit.apply(model, plan)
    with pytest.raises(PlanError, match="another structure"):
        prunekit.apply(model, plan)
    assert differences(before, snapshot(other)) == []


def test_an_attribute_that_differs_is_refused(model):
    plan = prunekit.plan(model, X)
    model.head_dim = 4
    before = snapshot(model)
    with pytest.raises(PlanError, match=r"head_dim is 4, the plan expects 8"):
        prunekit.apply(model, plan)
    del model.head_dim
    with pytest.raises(PlanError, match="no attribute"):
        prunekit.apply(model, plan)
    model.head_dim = 4
    assert differences(before, snapshot(model)) in ([], [("", "names")])


def test_a_cut_of_another_length_is_refused(model):
    plan = prunekit.plan(model, X)
    wrong = replace(plan, cuts=(*plan.cuts[:-1], replace(plan.cuts[-1], size=plan.cuts[-1].size + 1)))
    before = snapshot(model)
    with pytest.raises(PlanError, match="length"):
        prunekit.apply(model, wrong)
    with pytest.raises(PlanError, match="no tensor"):
        prunekit.apply(model, replace(plan, cuts=(*plan.cuts[:-1], replace(plan.cuts[-1], tensor="none.weight"))))
    assert differences(before, snapshot(model)) == []


@pytest.mark.parametrize("ratio", [1, 1.0, -0.1, float("nan"), 2, "half"])
def test_a_ratio_outside_is_refused(model, ratio):
    before = snapshot(model)
    with pytest.raises(InputError):
        prunekit.prune(model, X, ratio=ratio)
    assert differences(before, snapshot(model)) == []


@pytest.mark.parametrize("how", [{"include": "nothing*"}, {"exclude": ["qkv*", "typo.weight"]}, {"roles": "no.role"}])
def test_a_pattern_that_matches_nothing_is_refused(model, how):
    before = snapshot(model)
    with pytest.raises(InputError, match=r"nothing\*|typo|no\.role"):
        prunekit.prune(model, X, **how)
    assert differences(before, snapshot(model)) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("verify", ["auto", "shapes"])
def test_weights_that_are_not_finite_are_refused(model, value, verify):
    with torch.no_grad():
        model.qkv.weight[0, 0] = value
        model.qkv.weight[3, 1] = value
    before = snapshot(model)
    with pytest.raises((VerificationError, ScorerError)):
        prunekit.prune(model, X, verify=verify)
    assert differences(before, snapshot(model)) == []


def test_nothing_to_prune_lists_every_width_with_its_reason():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.b(self.a(x).roll(1, -1))

    model, x = Fixed(), torch.randn(2, 6)
    before = snapshot(model)
    with pytest.raises(NothingToPruneError) as caught:
        prunekit.prune(model, x)
    text = str(caught.value)
    assert "a.weight:0 (8): it is rolled by a constant shift [" in text
    assert "test_engine_transaction.py:" in text
    assert "b.weight:0 (3): it is an output of the model" in text
    assert differences(before, snapshot(model)) == []


def test_a_forward_that_fails_is_reported_and_the_model_untouched(model):
    wrong = torch.randn(2, 5, 17)
    before = snapshot(model)
    with pytest.raises(prunekit.PrunekitError, match="forward failed"):
        prunekit.prune(model, wrong)
    with pytest.raises(InputError):
        prunekit.prune(lambda x: x, X)
    with pytest.raises(InputError, match="verify"):
        prunekit.prune(model, X, verify="maybe")
    assert differences(before, snapshot(model)) == []


@pytest.mark.parametrize("seed", [2, 5, 11, 16])
def test_planning_leaves_no_trace(seed):
    model, inputs = build(seed)
    model.train()
    model.register_forward_pre_hook(lambda *_: None)
    next(model.parameters()).requires_grad_(False)
    before = snapshot(model)
    prunekit.plan(model, inputs, scorer=prunekit.Random(seed=0))
    prunekit.trace(model, inputs)
    assert differences(before, snapshot(model)) == []
    hooks = nn.modules.module
    assert not hooks._global_forward_hooks
    assert not hooks._global_forward_pre_hooks


def test_frozen_parameters_stay_frozen_and_modes_stay(model):
    model.train()
    model.norm.eval()
    model.qkv.weight.requires_grad_(False)
    prunekit.prune(model, X)
    assert (model.training, model.norm.training) == (True, False)
    assert not model.qkv.weight.requires_grad
    assert model.proj.weight.requires_grad
    assert all(p.is_leaf for p in model.parameters())


def test_a_user_hook_still_runs(model):
    seen = []
    model.qkv.register_forward_hook(lambda m, a, out: seen.append(out.shape))
    result = prunekit.prune(model, X, verify="shapes")
    seen.clear()
    run(model, X)
    assert seen == [(2, 5, model.qkv.weight.shape[0])]
    assert result.plan.edits
