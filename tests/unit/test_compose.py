"""Law: applying two plans in turn equals applying their composition."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import prunekit
from prunekit.errors import PlanError
from prunekit.plans.composition import compose
from prunekit.plans.contents import Cut, Edit, Fold, Plan, Width

TENSORS = {"a": (6, 5), "b": (4, 6), "c": (3,)}


def subset(draw, size):
    kept = draw(st.sets(st.integers(0, size - 1), min_size=1))
    return tuple(sorted(kept))


def random_plan(draw, shapes, attributes):
    """A plan for tensors of these shapes, and the shapes and attributes that it leaves."""
    cuts, folds, widths, after = [], [], [], {name: list(shape) for name, shape in shapes.items()}
    for name, shape in shapes.items():
        for axis, size in enumerate(shape):
            if draw(st.booleans()):
                kept = subset(draw, size)
                cuts.append(Cut(name, axis, size, kept))
                widths.append(Width(f"{name}:{axis}", "role", size, kept))
                after[name][axis] = len(kept)
    for name, shape in after.items():
        for axis, size in enumerate(shape):
            if draw(st.booleans()):
                folds.append(Fold(name, axis, subset(draw, size), draw(st.sampled_from([0.5, 2.0, 3.0]))))
    edits, values = [], dict(attributes)
    for key, value in attributes.items():
        if draw(st.booleans()):
            values[key] = draw(st.integers(1, 9))
            edits.append(Edit("m", key, None, value, values[key]))
    plan = Plan("print", tuple(widths), tuple(cuts), tuple(edits), tuple(folds))
    return plan, {name: tuple(shape) for name, shape in after.items()}, values


def applied(plan, tensors, attributes):
    """What a plan means, on arrays: cut, then fold, then set."""
    out = dict(tensors)
    for cut in plan.cuts:
        assert out[cut.tensor].shape[cut.axis] == cut.size
        out[cut.tensor] = out[cut.tensor].take(cut.kept, cut.axis)
    for fold in plan.folds:
        value = out[fold.tensor].copy()
        np.moveaxis(value, fold.axis, 0)[list(fold.rows)] *= fold.factor
        out[fold.tensor] = value
    values = dict(attributes)
    for edit in plan.edits:
        assert values[edit.attribute] == edit.before
        values[edit.attribute] = edit.after
    return out, values


@st.composite
def two_plans(draw):
    attributes = {"heads": 4, "width": 6}
    first, shapes, values = random_plan(draw, TENSORS, attributes)
    second, _, _ = random_plan(draw, shapes, values)
    return attributes, first, second


@given(two_plans())
def test_two_plans_in_turn_are_one(case):
    attributes, first, second = case
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(size=shape) for name, shape in TENSORS.items()}
    in_turn = applied(second, *applied(first, tensors, attributes))
    at_once = applied(compose(first, second), tensors, attributes)
    assert in_turn[1] == at_once[1]
    for name in TENSORS:
        np.testing.assert_allclose(in_turn[0][name], at_once[0][name], rtol=1e-12)


@given(two_plans())
def test_widths_count_from_the_original(case):
    _, first, second = case
    for width in compose(first, second).widths:
        tensor, axis = width.group.split(":")
        assert width.before == TENSORS[tensor][int(axis)]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (Plan("p", (), (Cut("a", 0, 9, (0,)),)), "expects 9"),
        (Plan("p", (), (), (Edit("m", "heads", None, 7, 1),)), "= 7"),
    ],
)
def test_plans_that_do_not_meet_are_refused(second, message):
    first = Plan("p", (Width("a:0", "r", 6, (0, 2)),), (Cut("a", 0, 6, (0, 2)),), (Edit("m", "heads", None, 4, 2),))
    with pytest.raises(PlanError, match=message):
        compose(first, second)


def test_a_unit_that_is_still_there_in_part_counts_as_kept():
    first = Plan("p", (Width("a:0", "r", 2, (1,)),), (Cut("a", 0, 6, (3, 4, 5)),))
    second = Plan("p", (Width("a:0", "r", 3, (0, 2)),), (Cut("a", 0, 3, (0, 2)),))
    joined = compose(first, second)
    assert joined.widths == (Width("a:0", "r", 2, (1,)),)
    assert joined.cuts == (Cut("a", 0, 6, (3, 5)),)


def test_on_a_real_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 4))
    fresh, x = copy.deepcopy(model), torch.randn(3, 8)
    first = prunekit.prune(model, x, ratio=0.25).plan
    second = prunekit.prune(model, x, ratio=0.5).plan
    prunekit.apply(fresh, compose(first, second))
    torch.testing.assert_close(fresh(x), model(x), rtol=0, atol=0)
