"""A measured allocation on small models: where the slack is, what is refused, what is kept, what it costs."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields

import pytest
import torch
from support.compare import differences, snapshot
from torch import nn

import prunekit
from prunekit.allocation.measuring import Meter
from prunekit.allocation.store import DamageStore
from prunekit.allocation.surveying import survey
from prunekit.compensation.settings import Compensation
from prunekit.errors import InputError, ScorerError
from prunekit.inputs import normalise
from prunekit.plans.contents import Plan

X = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))


class Uneven(nn.Module):
    """Two hidden layers of one size: half of the first one's units do nothing, all of the second one's do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.idle, self.busy = nn.Linear(6, 32), nn.Linear(6, 32)
        self.out, self.other = nn.Linear(32, 5), nn.Linear(32, 5)
        with torch.no_grad():
            for tensor in (self.idle.weight, self.idle.bias, self.out.weight.t()):
                tensor[16:] = 0

    def forward(self, x):
        return self.out(torch.relu(self.idle(x))) + self.other(torch.relu(self.busy(x)))


def cut(model, **more):
    asked = {"target": "params<=76%", "allocation": "measured", "scorer": "wanda", "data": list(X.split(1)), **more}
    return prunekit.prune(model, X, **asked)


def test_what_does_nothing_goes_and_what_works_stays():
    model = Uneven()
    with torch.no_grad():
        before = model(X)
    result = cut(model)
    assert (model.idle.out_features, model.busy.out_features) == (16, 32)
    torch.testing.assert_close(model(X), before)
    told = "\n".join(result.report.notes)
    assert "2 sites" in told
    assert "forward passes" in told
    assert "gap" in told
    ranked = Uneven()
    cut(ranked, allocation="ranked")
    assert ranked.busy.out_features < 32


def test_several_limits_and_steps_hold_together():
    model = Uneven()
    report = cut(model, target="params<=60%, macs<=58%, memory<=61%", steps=2, schedule="linear").report
    for name, most in (("params", 0.6), ("macs", 0.58), ("memory", 0.61)):
        counts = getattr(report, name)
        assert counts["after"] <= most * counts["before"]


@pytest.mark.parametrize("damage", ["kl", "mse", lambda now, was: float((now[0] - was[0]).abs().sum())])
def test_every_damage_is_zero_for_what_changes_nothing(damage):
    model = Uneven()
    half = prunekit.plan(model, X, ratio={"idle.weight:0": 0.5}, scorer="wanda", data=X.split(1))
    most = prunekit.plan(model, X, ratio={"busy.weight:0": 0.5}, scorer="wanda", data=X.split(1))
    inputs = [normalise(x) for x in X.split(1)]
    before = snapshot(model)
    nothing, something = Meter.of(model, prunekit.Measured(damage=damage), inputs).damages([half, most])
    assert nothing < 1e-9 < 1e-4 < something
    assert not differences(before, snapshot(model))


def test_what_was_measured_is_recalled_from_the_file_and_only_for_the_same_weights(tmp_path):
    file = tmp_path / "runs" / "damages.json"
    how = prunekit.Measured(store=file)
    first = cut(Uneven(), allocation=how).report.notes[0]
    again = cut(Uneven(), allocation=how).report.notes[0]
    assert " 0 plans measured" in again
    assert " 0 plans measured" not in first
    assert set(json.loads(file.read_text())) == {"format", "damages"}
    other = Uneven()
    with torch.no_grad():
        other.busy.weight.mul_(1.5)
    assert " 0 plans measured" not in cut(other, allocation=how).report.notes[0]
    file.write_text("{}")
    with pytest.raises(InputError, match="no file of damages"):
        cut(Uneven(), allocation=how)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"target": None, "ratio": 0.5}, "spends a target"),
        ({"allocation": "guessed"}, "not an allocation"),
        ({"uniform": True}, "nothing to allocate"),
        ({"free_outputs": True}, "cannot be compared"),
    ],
)
def test_what_cannot_be_is_refused(asked, says):
    model = Uneven()
    before = snapshot(model)
    with pytest.raises(InputError, match=says) as caught:
        cut(model, **asked)
    assert caught.value.hint
    assert not differences(before, snapshot(model))


@pytest.mark.parametrize(
    "wrong", [{"widths": ()}, {"widths": (1.0,)}, {"widths": (True,)}, {"samples": 0}, {"sets": True}, {"damage": "l3"}]
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError):
        prunekit.Measured(**wrong)


def test_outputs_that_are_not_finite_are_refused_and_such_variants_are_not_taken():
    model = Uneven()
    plans = [prunekit.plan(model, X, ratio={"busy.weight:0": 0.5}, scorer="magnitude")]
    inputs = [normalise(X)]

    def broken(now, was):
        return math.nan

    assert Meter.of(model, prunekit.Measured(damage=broken), inputs).damages(plans) == [math.inf]
    nothing = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), Chosen())
    plan = prunekit.plan(nothing, X, ratio=0.5, scorer="magnitude", include="0.weight")
    with pytest.raises(ScorerError, match="no floating tensor"):
        Meter.of(nothing, prunekit.Measured(), inputs).damages([plan])


class Chosen(nn.Module):
    def forward(self, x):
        return x.argmax(1)


class Block(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.first, self.act, self.last = nn.Linear(6, 16), act, nn.Linear(16, 6)

    def forward(self, x):
        return x + self.last(self.act(self.first(x)))


def chain(act=nn.ReLU, count=12):
    torch.manual_seed(0)
    return nn.Sequential(*[Block(act()) for _ in range(count)])


def plans_of(model):
    structure = prunekit.trace(model, X)
    return [
        prunekit.plan(model, X, structure=structure, ratio={group.name: 0.5}, scorer="magnitude", verify="shapes")
        for group in structure.groups
    ]


@pytest.mark.parametrize(
    "act", [nn.ReLU, lambda: nn.Hardswish(inplace=True), nn.Identity], ids=["plain", "own", "view"]
)
def test_a_plan_costs_half_a_pass(act):
    model = chain(act)
    plans = plans_of(model)
    assert len(plans) == 12
    meter = Meter.of(model, prunekit.Measured(), [normalise(x) for x in X.split(1)])
    meter.damages(plans)
    assert meter.reuses
    overhead = 1 + 1 + 2.2  # the original, what is recorded, the check that both ways agree
    assert meter.bill.passes < 0.56 * len(plans) + overhead


class Leaving(nn.Module):
    """Blocks that leave their features for the tail, beside what they return: no recorded output stands for them."""

    def __init__(self, short):
        super().__init__()
        self.blocks, self.tail = chain(count=4), nn.Linear(6, 4)
        self.left, self.short = [], short
        for block in self.blocks:
            block.register_forward_hook(lambda module, given, result: self.left.append(result))

    def forward(self, x):
        self.left.clear()
        self.blocks(x)
        return self.tail(sum(self.left) if self.short else torch.stack(self.left)[[0, 1, 2, 3]].sum(0))


@pytest.mark.parametrize("short", [True, False], ids=["a sum that lacks some", "an index that fails"])
def test_what_modules_leave_beside_their_outputs_is_not_lost(short):
    model = Leaving(short)
    plans = plans_of(model)
    before = snapshot(model)
    meter = Meter.of(model, prunekit.Measured(damage="mse"), [normalise(X)])
    damages = meter.damages(plans)
    assert meter.reuses is False
    whole = [meter.whole(plan) for plan in plans]
    assert meter.bill.plans == len(plans)  # known already
    assert damages == whole
    assert all(damage > 0 for damage in damages)
    assert not differences(before, snapshot(model))


@dataclass(frozen=True, repr=False)
class Swapping(Plan):
    """A plan that says more than cuts, of which nothing here knows."""

    swaps: tuple[str, ...] = ()


def test_what_a_plan_says_beyond_cuts_is_neither_confused_nor_passed_over():
    model = chain(count=3)
    (plan, *_) = reversed(plans_of(model))
    told = {each.name: getattr(plan, each.name) for each in fields(plan)}
    one, two = Swapping(**told, swaps=("0",)), Swapping(**told, swaps=("1",))
    store = DamageStore.of(None, "")
    assert len({store.key(each) for each in (plan, one, two)}) == 3
    seen, _ = survey(model, lambda: model(X))
    assert seen.begins(plan) > 0
    assert seen.begins(plan, plan) == 0  # nothing differs: nothing to begin from
    assert seen.begins(one) == seen.begins(plan, one) == 0


def test_what_a_killed_run_has_measured_is_kept_but_for_the_last_seconds(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("prunekit.allocation.store.time.monotonic", lambda: now[0])
    file = tmp_path / "damages.json"
    store = DamageStore.of(file, "")
    for second in range(1, 15):
        now[0] = float(second)
        store.put(f"{second}", (0.5, 1.0))
    kept = DamageStore.of(file, "")  # nothing was saved by name: this is what a kill leaves
    assert [kept.get(f"{second}") is not None for second in (1, 11, 12, 14)] == [True, True, False, False]


def test_two_that_write_to_one_file_keep_each_others_damages(tmp_path):
    file = tmp_path / "damages.json"
    one, two = DamageStore.of(file, ""), DamageStore.of(file, "")
    one.put("one", (0.5, 1.0))
    one.save()
    two.put("two", (0.25, 1.0))
    two.save()
    assert [DamageStore.of(file, "").get(key) for key in ("one", "two")] == [(0.5, 1.0), (0.25, 1.0)]


FITS = [normalise(x) for x in torch.randn(24, 6, generator=torch.Generator().manual_seed(5)).split(1)]


def by_hand(model, plan, how, samples):
    """The mean squared error of the model that is really cut and refitted, relative to the square of the outputs."""
    with torch.no_grad():
        whole = model(samples)
        undo = prunekit.apply(model, plan, compensate=how, data=[x.args[0] for x in FITS])
        now = model(samples)
    undo()
    return float((now - whole).square().sum() / whole.square().sum())


@pytest.mark.parametrize("memory", [4 << 30, 1], ids=["one sweep", "a sweep a width"])
def test_with_a_refit_every_plan_is_measured_as_it_is_refitted(memory):
    model = Uneven()
    with torch.no_grad():  # so that what goes is missed, and a refit helps
        model.idle.weight[16:] = model.idle.weight[:16] + 0.1
        model.out.weight[:, 16:] = 1.0
    how = Compensation(strength=1e-3, memory=memory)
    ratios = ({"idle.weight:0": 0.5}, {"busy.weight:0": 0.25}, {"idle.weight:0": 0.25, "busy.weight:0": 0.5})
    plans = [prunekit.plan(model, X, ratio=ratio, scorer="magnitude") for ratio in ratios]
    before = snapshot(model)
    meter = Meter.of(model, prunekit.Measured(damage="mse"), [normalise(X)], how, FITS)
    assert meter.damages(plans) == pytest.approx([by_hand(model, plan, how, X) for plan in plans], rel=1e-5)
    near = Meter.of(model, prunekit.Measured(damage="mse"), [normalise(X)], how, FITS)
    assert near.damages(plans, plans[2]) == pytest.approx(meter.damages(plans), rel=1e-6)
    assert meter.damages(plans) == [meter.whole(plan) for plan in plans]
    plain = Meter.of(model, prunekit.Measured(damage="mse"), [normalise(X)])
    assert all(now < was for now, was in zip(meter.damages(plans), plain.damages(plans), strict=True))
    assert (meter.sums.sweeps == 1) is (memory > 1)
    assert not differences(before, snapshot(model))


def test_a_refit_sees_all_samples_and_none_that_damage_is_measured_on_and_they_are_swept_once():
    model = Uneven()
    data = list(torch.randn(40, 6, generator=torch.Generator().manual_seed(3)).split(1))
    result = cut(model, data=data, compensate="ridge", allocation=prunekit.Measured(samples=8))
    assert "refits read 32 inputs 1 times" in "\n".join(result.report.notes)


def test_damages_of_a_refit_are_not_those_without_and_depend_on_what_it_sees(tmp_path):
    how = prunekit.Measured(store=tmp_path / "damages.json")
    model = Uneven()
    plan = prunekit.plan(model, X, ratio={"busy.weight:0": 0.5}, scorer="magnitude")
    meters = [
        Meter.of(model, how, [normalise(X)]),
        Meter.of(model, how, [normalise(X)], Compensation(), FITS),
        Meter.of(model, how, [normalise(X)], Compensation(), FITS[:12]),
    ]
    assert len({meter.damages([plan])[0] for meter in meters}) == 3
    assert [meter.bill.recalled for meter in meters] == [0, 0, 0]
    again = Meter.of(model, how, [normalise(X)], Compensation(), FITS)
    assert again.damages([plan]) == meters[1].damages([plan])
    assert again.bill.plans == 0


def test_a_refit_sees_as_many_other_samples_as_it_asks_for():
    data = list(torch.randn(40, 6, generator=torch.Generator().manual_seed(3)).split(1))
    for asked, seen in ((12, 12), (32, 24)):
        how = prunekit.Measured(samples=16)
        told = cut(Uneven(), data=data, compensate=Compensation(samples=asked), allocation=how).report.notes
        assert f"refits read {seen} inputs 1 times" in "\n".join(told)
