"""Targets in words, budgets, bounds, steps: what they take, what they refuse."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from support.compare import differences, snapshot
from torch import nn

import prunekit
from prunekit import api
from prunekit.coupling.structure import Structure
from prunekit.errors import InputError, NothingToPruneError, ScorerError, SelectionError, VerificationError
from prunekit.options.schedules import portions
from prunekit.planning import settling
from prunekit.quantities.counted_cost import CountedCost
from prunekit.quantities.limits import Limit
from prunekit.selection import parse_target
from prunekit.selection.budget import _HALVINGS
from prunekit.selection.ratio import default_step, widths
from prunekit.tracing import recorder


def network(width=32):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.Conv2d(2 * width, width, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5),
    ).eval()  # fmt: skip


IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("macs<=2.3G", [Limit("macs", 2.3e9)]),
        (" MACs <= 2.3 g , params<=50%", [Limit("macs", 2.3e9), Limit("params", 0.5, True)]),
        ("latency<=15ms", [Limit("latency", 0.015)]),
        ("memory<=40MiB", [Limit("memory", 40 * 2**20)]),
        ("params<=9.1M,", [Limit("params", 9.1e6)]),
        ("params<=1e6", [Limit("params", 1e6)]),
        ({"params": 5e5, "latency": 0.01}, [Limit("params", 5e5), Limit("latency", 0.01)]),
        ({"macs": "70%"}, [Limit("macs", 0.7, True)]),
    ],
)
def test_targets_in_words(text, limits):
    found = parse_target(text)
    assert [(x.quantity, x.relative) for x in found] == [(x.quantity, x.relative) for x in limits]
    assert [x.most for x in found] == pytest.approx([x.most for x in limits])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("macs=2G", "not a target"),
        ("macs>=2G", "not a target"),
        ("flops<=2G", "not a quantity"),
        ("macs<=2 lightyears", "not a unit"),
        ("latency<=15", "not a unit"),
        ("macs<=1.2.3G", "not a number"),
        ("macs<=0", "leaves nothing"),
        ("macs<=-5", "not a target"),
        ("macs<=1G, macs<=2G", "twice"),
        ({"macs": math.nan}, "not an amount"),
        ({"macs": True}, "not an amount"),
        ({"macs": math.inf}, "not an amount"),
    ],
)
def test_targets_that_are_refused_show_how_to_write_one(text, says):
    model = network()
    before = snapshot(model)
    with pytest.raises(InputError, match=says) as caught:
        prunekit.prune(model, IMAGE, target=text)
    assert caught.value.hint
    assert not differences(before, snapshot(model))


@pytest.mark.parametrize("ratio", [-0.5, 1.0, 1.5, math.nan, "half", True, {"channels": 1.0}])
def test_ratios_that_are_refused(ratio):
    model = network()
    before = snapshot(model)
    with pytest.raises(InputError, match="not a pruning ratio"):
        prunekit.prune(model, IMAGE, ratio=ratio)
    assert not differences(before, snapshot(model))


@pytest.mark.parametrize("scorer", [prunekit.Magnitude(), prunekit.FPGM(), prunekit.LAMP(), prunekit.Random()])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("how_much", [{"ratio": 0.5}, {"target": "macs<=50%"}, {"ratio": 0.5, "steps": 2}])
def test_weights_that_are_not_finite_are_refused_by_name(scorer, value, how_much):
    model = network()
    with torch.no_grad():
        model[3].weight[0, 0, 0, 0] = value
    before = snapshot(model)
    with pytest.raises(ScorerError, match=r"the weight 3\.weight is not finite"):
        prunekit.prune(model, IMAGE, scorer=scorer, verify="shapes", **how_much)
    assert not differences(before, snapshot(model))
    with pytest.raises(VerificationError, match="not finite"):
        prunekit.prune(model, IMAGE, scorer=scorer, verify="full", **how_much)
    assert not differences(before, snapshot(model))


@pytest.mark.parametrize("bound", ["min_ratio", "max_ratio"])
@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, math.nan])
@pytest.mark.parametrize("how_much", [{"ratio": 0.5}, {"target": "macs<=50%"}])
def test_bounds_that_are_no_ratios_are_refused(bound, value, how_much):
    model = network()
    before = snapshot(model)
    with pytest.raises(InputError, match="not a pruning ratio"):
        prunekit.prune(model, IMAGE, verify="shapes", **how_much, **{bound: value})
    assert not differences(before, snapshot(model))


def test_ratio_and_target_together_are_refused():
    with pytest.raises(InputError, match="both say how much"):
        prunekit.plan(network(), IMAGE, ratio=0.5, target="macs<=50%")


@pytest.mark.parametrize("pattern", [{"include": ["nowhere.*"]}, {"exclude": "nowhere"}, {"roles": ["fins"]}])
def test_a_pattern_that_matches_nothing_is_an_error(pattern):
    with pytest.raises(InputError, match="matches nothing"):
        prunekit.plan(network(), IMAGE, target="macs<=50%", **pattern)
    with pytest.raises(InputError, match="matches no group"):
        prunekit.plan(network(), IMAGE, ratio={"fins": 0.2})


def test_several_limits_hold_together():
    model = network()
    report = prunekit.prune(model, IMAGE, target="macs<=60%, params<=30%, memory<=9kB", verify="shapes").report
    assert report.macs["after"] <= 0.6 * report.macs["before"]
    assert report.params["after"] <= 0.3 * report.params["before"]
    assert report.memory["after"] <= 9000
    assert report.target == "macs<=60%, params<=30%, memory<=9kB"
    assert report.ratio is None


def test_a_target_that_is_met_already_takes_nothing():
    model = network()
    assert prunekit.plan(model, IMAGE, target="macs<=100%").cuts == ()
    assert prunekit.prune(model, IMAGE, target={"params": 1e9}).report.params["after"] == sum(
        p.numel() for p in model.parameters()
    )


def test_a_target_out_of_reach_says_what_is_left_and_what_limits_it():
    model = network()
    before = snapshot(model)
    with pytest.raises(SelectionError) as caught:
        prunekit.prune(model, IMAGE, target="macs<=50%", max_ratio=0.1, align=1, exclude=["0.weight"])
    said = str(caught.value)
    assert "out of reach: macs<=" in said
    assert "the narrowest widths leave" in said
    assert "not chosen: 0.weight:0" in said
    assert "frozen" in said
    assert not differences(before, snapshot(model))
    plan = prunekit.plan(model, IMAGE, ratio=0.1, align=1, exclude=["0.weight"])
    prunekit.apply(model, plan)
    left = prunekit.trace(model, IMAGE).cost().macs
    assert f"leave {left:.6g} of" in said


def test_the_narrowest_model_can_be_asked_for_to_the_digit():
    model = network()
    structure = prunekit.trace(model, IMAGE)
    narrowest = structure.cost({group.name: torch.arange(1) for group in structure.groups}).params
    with pytest.raises(SelectionError):
        prunekit.plan(model, IMAGE, target={"params": narrowest - 1}, align=1)
    report = prunekit.prune(model, IMAGE, target={"params": narrowest}, align=1).report
    assert report.params["after"] == narrowest


@pytest.mark.parametrize("ranking", ["local", "global", "role", "isomorphic"])
def test_bounds_hold_under_every_ranking(ranking):
    model = network()
    found = prunekit.plan(model, IMAGE, ratio=0.5, ranking=ranking, align=1, min_ratio=0.25, max_ratio={"*": 0.6})
    assert len(found.widths) == 3
    for width in found.widths:
        assert 0.25 <= 1 - len(width.kept) / width.before <= 0.6
    found = prunekit.plan(model, IMAGE, target="params<=40%", ranking=ranking, align=1, max_ratio=0.6)
    for width in found.widths:
        assert 1 - len(width.kept) / width.before <= 0.6


def test_bounds_that_contradict_each_other_are_refused():
    with pytest.raises(InputError, match="cannot both hold"):
        prunekit.plan(network(), IMAGE, ratio=0.5, min_ratio=0.6, max_ratio=0.4)


class Twins(nn.Module):
    """Two branches of the same structure and one of another."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = self.branch(nn.Identity()), self.branch(nn.Identity()), self.branch(nn.BatchNorm2d(16))

    def branch(self, norm):
        return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(16, 4, 1))

    def forward(self, x):
        return self.a(x) + self.b(x) + self.c(x)


def test_isomorphic_ranking_compares_groups_of_one_structure_only():
    torch.manual_seed(0)
    model = Twins().eval()
    with torch.no_grad():
        model.b[0].weight.mul_(0.01)  # its units lose against those of its twin, and against nobody else's
        for parameter in model.c.parameters():
            parameter.mul_(1e-4)
    options = {"ratio": 0.5, "align": 1, "normaliser": "none", "verify": "shapes"}
    widths = {w.group: len(w.kept) for w in prunekit.plan(model, IMAGE, ranking="isomorphic", **options).widths}
    assert widths["c.0.weight:0"] == 8
    assert widths["a.0.weight:0"] > widths["b.0.weight:0"]
    assert widths["a.0.weight:0"] + widths["b.0.weight:0"] == 16
    everywhere = {w.group: len(w.kept) for w in prunekit.plan(model, IMAGE, ranking="global", **options).widths}
    assert everywhere["c.0.weight:0"] < 8


def test_portions_of_the_schedules():
    assert portions(4, "linear") == (0.25, 0.5, 0.75, 1.0)
    assert portions(2, "cubic") == (1 - 0.5**3, 1.0)
    assert portions(1, "cubic") == (1.0,)
    for steps in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="number of steps"):
            portions(steps, "linear")
    with pytest.raises(InputError, match="not a schedule"):
        portions(2, "quartic")


@pytest.mark.parametrize("how_much", [{"ratio": 0.5}, {"target": "macs<=40%"}])
def test_steps_train_in_between_and_end_where_one_step_would(how_much):
    model, once = network(), network()
    seen = []

    def on_step(current, number, of):
        seen.append((number, of, sum(p.numel() for p in current.parameters())))
        assert current is model
        with torch.no_grad():
            current[0].weight.mul_(1.01)

    how_much = {**how_much, "verify": "shapes", "scorer": "magnitude"}  # which the steps do not change
    result = prunekit.prune(model, IMAGE, steps=3, schedule="linear", on_step=on_step, **how_much)
    assert [s[:2] for s in seen] == [(1, 3), (2, 3), (3, 3)]
    assert seen[0][2] > seen[1][2] > seen[2][2]
    whole = prunekit.prune(once, IMAGE, **how_much).report
    if "ratio" in how_much:
        assert result.report.params == whole.params
    assert result.report.macs["before"] == whole.macs["before"]
    assert result.report.macs["after"] <= whole.macs["after"] * 1.01


def test_a_callback_that_fails_leaves_the_model_bit_identical():
    model = network()
    before = snapshot(model)

    def on_step(current, number, of):
        with torch.no_grad():
            current[0].weight.zero_()
            current[1].running_mean.add_(1)
        if number == 2:
            raise KeyError("out of data")

    with pytest.raises(KeyError):
        prunekit.prune(model, IMAGE, ratio=0.5, steps=3, on_step=on_step, verify="shapes")
    assert not differences(before, snapshot(model))


def test_undo_after_training_between_steps_gives_the_original_back():
    model = network()
    before = snapshot(model)

    def on_step(current, number, of):
        with torch.no_grad():
            for p in current.parameters():
                p.add_(0.1)

    result = prunekit.prune(model, IMAGE, ratio=0.5, steps=2, on_step=on_step, verify="shapes")
    assert differences(before, snapshot(model))
    result.undo()
    assert not differences(before, snapshot(model))


def test_a_step_that_would_take_nothing_is_passed_over():
    model = network(8)
    seen = []
    prunekit.prune(
        model, IMAGE, ratio=0.13, steps=8, schedule="linear", on_step=lambda m, k, n: seen.append(k), verify="shapes"
    )
    assert seen == list(range(1, 9))
    with pytest.raises(NothingToPruneError):
        prunekit.prune(network(8), IMAGE, ratio=0.01, steps=2, verify="shapes")


def counting(monkeypatch, where, name):
    """Counts the calls of a function or method, which still does what it did."""
    calls, original = [], getattr(where, name)

    def counted(*args, **kwargs):
        calls.append(name)
        return original(*args, **kwargs)

    monkeypatch.setattr(where, name, counted)
    return calls


@pytest.mark.parametrize("ranking", ["local", "global"])
def test_a_search_rebuilds_nothing_and_evaluates_costs_a_bounded_number_of_times(monkeypatch, ranking):
    model = network(64)
    structure = prunekit.trace(model, IMAGE)
    traced = counting(monkeypatch, recorder, "record")
    monkeypatch.setattr(api, "record", recorder.record)
    rehearsed = counting(monkeypatch, settling, "rehearse")
    copied = counting(monkeypatch, copy, "deepcopy")
    evaluated = counting(monkeypatch, CountedCost, "__call__")
    exactly = counting(monkeypatch, Structure, "cost")
    prunekit.prune(model, IMAGE, target="macs<=50%", ranking=ranking, structure=structure, verify="shapes")
    assert not traced
    assert not copied
    assert len(rehearsed) == 1
    # the halvings of one search, the two ends, and at most one trial for every alignment step of every group
    steps = sum(len(widths(group.size, default_step(group))) for group in structure.groups)
    assert 0 < len(evaluated) <= _HALVINGS + 2 + steps
    assert len(exactly) <= 10
