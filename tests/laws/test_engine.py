"""Laws of the engine: whatever the network, these hold. PRUNEKIT_LAW_EXAMPLES says over how many networks."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, reject, settings
from hypothesis import strategies as st
from support.compare import differences, distance, layer_macs, masked, measured, run, snapshot
from support.drafts import choose, draft
from support.networks import build
from torch import nn

import prunekit
from prunekit.errors import NothingToPruneError
from prunekit.modules.walk import state_tensors
from prunekit.planning.rehearsal import rehearse
from prunekit.planning.solving import make_plan
from prunekit.planning.symmetry_check import symmetry
from prunekit.plans.contents import Plan

EXAMPLES = int(os.environ.get("PRUNEKIT_LAW_EXAMPLES", "40"))
pytestmark = pytest.mark.timeout(0)  # the number of examples is set from outside
SEEDS = st.integers(0, 2**20)
RATIOS = st.sampled_from([0.2, 0.3, 0.4, 0.5])
law = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # a smaller seed is no smaller network
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drafted(model, inputs, seed, ratio, **how):
    return draft(model, inputs, scorer=prunekit.Random(seed=seed), ratio=ratio, verify="shapes", **how)


def footprint(group):
    """The axes that a group runs through: a width that shrank to one unit hands its name to another."""
    return [(m.tensor, m.axis) for m in group.members]


@law
@given(SEEDS)
def test_units_are_interchangeable(seed):
    model, inputs = build(seed)
    structure = prunekit.trace(model, inputs)
    assert structure.groups
    assert structure.unknown == {}
    found = symmetry(model, structure.groups, structure.inputs, seed=seed)
    assert found.passed, found


@law
@given(SEEDS, RATIOS)
def test_pruned_equals_masked_where_no_norm_is_crossed(seed, ratio):
    model, inputs = build(seed)
    structure = prunekit.trace(model, inputs)
    plain = [g for g in choose(structure) if not g.normalised]
    assume(plain)
    try:
        made = drafted(model, inputs, seed, ratio, structure=structure, include=[g.name for g in plain])
    except NothingToPruneError:
        reject()  # without the embedding, what is left may be bound to it or too narrow for the ratio to take a unit
    assert made.notes == ()
    expected = run(masked(model, plain, made.kept), inputs)
    prunekit.apply(model, made.plan)
    assert distance(expected, run(model, inputs)) < 1e-9


@law
@given(SEEDS, RATIOS)
def test_no_group_is_dropped_for_want_of_a_size(seed, ratio):
    model, inputs = build(seed)
    made = drafted(model, inputs, seed, ratio)
    assert [f for f in made.plan.frozen if f not in made.structure.frozen] == []


@law
@given(SEEDS, RATIOS, st.booleans())
def test_plan_apply_undo_is_bit_identical(seed, ratio, training):
    model, inputs = build(seed)
    model.train(training)
    model.register_forward_hook(lambda *_: None)
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    before = snapshot(model)
    plan = drafted(model, inputs, seed, ratio).plan
    assert differences(before, snapshot(model)) == []
    undo = prunekit.apply(model, plan)
    assert differences(before, snapshot(model)) != []
    assert model.training is training
    undo()
    assert differences(before, snapshot(model)) == []


@settings(law, max_examples=max(1, EXAMPLES // 3))  # three networks an example
@given(SEEDS, RATIOS)
def test_two_steps_equal_one(seed, ratio):
    first_model, inputs = build(seed)
    second_model, once = build(seed)[0], build(seed)[0]
    first = drafted(first_model, inputs, seed, ratio)
    prunekit.apply(first_model, first.plan)
    prunekit.apply(second_model, first.plan)
    again = prunekit.trace(first_model, inputs)
    same = [
        g.name
        for g in again.groups
        if g.name in first.kept
        and footprint(g) == footprint(first.structure.group(g.name))
        and g.size == len(first.kept[g.name])
    ]
    assume(same)
    second = drafted(first_model, inputs, seed + 1, 0.3, structure=again, include=same)
    prunekit.apply(first_model, second.plan)
    both = prunekit.compose(first.plan, second.plan)
    prunekit.apply(once, both)
    one_step = {}
    for name, kept in first.kept.items():
        one_step[name] = kept[second.kept[name]] if name in second.kept else kept
    direct_model = build(seed)[0]
    structure = prunekit.trace(direct_model, inputs)
    direct = make_plan(direct_model, structure, one_step)
    assert {(c.tensor, c.axis): c.kept for c in direct.cuts} == {(c.tensor, c.axis): c.kept for c in both.cuts}
    expected = state_tensors(first_model)
    for name, tensor in state_tensors(once).items():
        assert torch.allclose(tensor, expected[name], rtol=1e-12, atol=0), name
    assert distance(run(first_model, inputs), run(once, inputs)) < 1e-12
    rehearse(direct_model, structure, direct, one_step)


@law
@given(SEEDS, RATIOS)
def test_predicted_costs_are_measured_ones(seed, ratio):
    model, inputs = build(seed)
    made = drafted(model, inputs, seed, ratio)
    whole, predicted = made.structure.cost(), made.structure.cost(made.kept)
    assert (whole.params, whole.macs) == measured(model, inputs)
    shapes = [t.shape for t in run(model, inputs)]
    prunekit.apply(model, made.plan)
    assert (predicted.params, predicted.macs) == measured(model, inputs)
    assert [t.shape for t in run(model, inputs)] == shapes
    assert predicted.params < whole.params
    bare = any(isinstance(m, nn.MultiheadAttention) or hasattr(m, "down") for m in model.modules())
    if not bare:  # products with bare parameters are layers too, but have no module to hook
        assert predicted.layer_macs == layer_macs(model, inputs)


@law
@given(SEEDS, RATIOS)
def test_a_plan_survives_json(seed, ratio):
    model, inputs = build(seed)
    twin = build(seed)[0]
    plan = drafted(model, inputs, seed, ratio).plan
    again = Plan.from_json(plan.to_json())
    assert again == plan
    prunekit.apply(model, plan)
    prunekit.apply(twin, again)
    for (name, a), b in zip(state_tensors(model).items(), state_tensors(twin).values(), strict=True):
        assert torch.equal(a, b), name
    assert all(torch.equal(a, b) for a, b in zip(run(model, inputs), run(twin, inputs), strict=True))


@law
@given(SEEDS, RATIOS)
def test_a_pruned_model_trains_at_another_batch_size(seed, ratio):
    model, (x,) = build(seed)
    prunekit.apply(model, drafted(model, (x,), seed, ratio).plan)
    model.train()
    model(torch.cat([x, x, x])).square().sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())
