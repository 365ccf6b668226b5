"""Latency targets, with a timer whose seconds follow from operators and shapes: no test here reads a clock to judge."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
from support.compare import differences, snapshot
from support.timers import FakeTimer
from torch import nn

import prunekit
from prunekit.errors import InputError, SelectionError
from prunekit.planning import on_the_clock
from prunekit.quantities.latency_table import LatencyTable, Pace
from prunekit.quantities.stopwatch import Clock, seconds_of

IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def network(width=64):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.Conv2d(2 * width, width, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5),
    ).eval()  # fmt: skip


def pruned(model, target="latency<=60%", timer=None, table=None, **options):
    table = table or LatencyTable(timer=timer or FakeTimer())
    return prunekit.prune(model, IMAGE, target=target, latency=table, verify="shapes", **options)


class Attending(nn.Module):
    """Torch's own attention, one operator on a CPU and several in a trace."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = self.qkv(x).reshape(2, 10, 3, 4, 8).permute(2, 0, 3, 1, 4)
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize("percent", [75, 60, 40])
def test_the_predicted_latency_is_the_measured_one_and_no_further_step_fits(percent):
    model = network()
    structure = prunekit.trace(model, IMAGE)
    table = LatencyTable(timer=FakeTimer())
    whole = seconds_of(model, structure.inputs, FakeTimer())
    result = pruned(model, f"latency<={percent}%", table=table)
    took = result.report.latency
    assert took["before"] == pytest.approx(whole)
    assert took["predicted"] == pytest.approx(took["after"])
    assert took["after"] == pytest.approx(seconds_of(model, structure.inputs, FakeTimer()))
    assert took["predicted"] <= percent / 100 * whole
    for width in result.plan.widths:
        kept = {w.group: torch.arange(w.after + 8 * (w is width)) for w in result.plan.widths}
        assert table.total(structure, kept) > percent / 100 * whole


def test_a_target_in_milliseconds_is_one_in_percent():
    first, second = network(), network()
    took = pruned(first, "latency<=60%").report.latency
    again = pruned(second, f"latency<={600 * took['before']!r}ms")
    assert again.report.latency == took


def test_a_model_that_gets_faster_between_two_measurements_does_not_meet_the_target():
    class Warming(FakeTimer):  # measured anew for its operators, the model would count as fast enough already
        def seconds(self, run, device):
            plain = super().seconds(run, device)
            return plain * 0.5**self.models if self.operators[-1] > 1 else plain

    model = network()
    report = pruned(model, "latency<=60%", Warming()).report
    assert report.macs["after"] < 0.9 * report.macs["before"]
    assert report.latency["predicted"] <= 0.6 * report.latency["before"]


def test_the_factor_takes_in_what_happens_between_operators():
    class Overhead(FakeTimer):
        def seconds(self, run, device):
            plain = super().seconds(run, device)
            return 3 * plain if self.operators[-1] > 1 else plain

    took = pruned(network(), timer=Overhead()).report.latency
    plain = pruned(network()).report.latency
    assert took == {name: pytest.approx(3 * seconds) for name, seconds in plain.items()}


def test_the_baseline_is_measured_once_a_call_however_many_steps():
    counts = []
    for steps in (2, 4):
        timer = FakeTimer()
        result = pruned(network(), timer=timer, steps=steps, schedule="linear")
        counts.append(timer.models)
        assert result.report.latency["predicted"] <= 0.6 * result.report.latency["before"]
    assert counts[0] == counts[1] > 0


def test_a_table_that_is_passed_again_times_no_operator_twice(tmp_path):
    timer = FakeTimer()
    table = LatencyTable(timer=timer)
    first = pruned(network(), table=table)
    timed = len(timer.operators) - timer.models
    assert timed == len(table.seconds) > 0
    again = pruned(network(), table=table)
    assert len(timer.operators) - timer.models == timed
    assert again.plan == first.plan

    table.save(tmp_path / "table.json")
    other = FakeTimer()
    loaded = LatencyTable.load(tmp_path / "table.json", timer=other)
    assert loaded.seconds == table.seconds
    assert pruned(network(), table=loaded).plan == first.plan
    assert other.models == len(other.operators)


@pytest.mark.parametrize("field", ["torch", "threads", "device", "name"])
def test_a_table_of_other_conditions_is_refused(tmp_path, field):
    file = tmp_path / "table.json"
    LatencyTable().save(file)
    told = json.loads(file.read_text())
    told["conditions"][field] = "another"
    file.write_text(json.dumps(told))
    with pytest.raises(InputError, match=f"measured elsewhere.*{field}"):
        LatencyTable.load(file)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": "another/1", "conditions": {}, "seconds": {}}',
        '{"format": "prunekit.latency/1", "conditions": {}, "seconds": {"a": -1}}',
        '{"format": "prunekit.latency/1", "conditions": {}, "seconds": {"a": NaN}}',
        '{"format": "prunekit.latency/1", "conditions": {}, "seconds": {"a": "fast"}}',
        '{"format": "prunekit.latency/1", "conditions": [], "seconds": {"a": 1}}',
    ],
)
def test_what_is_no_table_is_refused(tmp_path, text):
    file = tmp_path / "table.json"
    file.write_text(text)
    with pytest.raises(InputError, match="latency table"):
        LatencyTable.load(file)
    with pytest.raises(InputError, match="not a latency table"):
        LatencyTable.load(tmp_path / "missing.json")


def test_a_table_of_another_device_and_a_model_without_weights_are_refused():
    model = network()
    before = snapshot(model)
    with pytest.raises(InputError, match="table is for meta"):
        pruned(model, table=LatencyTable(torch.device("meta")))
    assert not differences(before, snapshot(model))
    with torch.device("meta"):
        bare = network()
    with pytest.raises(InputError, match="meta device has no latency"):
        prunekit.plan(bare, IMAGE.to("meta"), target="latency<=60%", scorer=prunekit.Random())


def test_a_latency_out_of_reach_is_refused():
    model = network()
    before = snapshot(model)
    with pytest.raises(SelectionError, match="out of reach: latency<="):
        pruned(model, "latency<=1us")
    assert not differences(before, snapshot(model))


def test_attention_is_timed_as_the_one_operator_that_it_runs_as():
    model, x = Attending().eval(), torch.randn(2, 10, 32)
    structure = prunekit.trace(model, x)
    table = LatencyTable(timer=FakeTimer())
    Pace.of(model, structure, table)
    heads = torch.randn(3, 2, 4, 10, 8)
    alone = FakeTimer().seconds(lambda: nn.functional.scaled_dot_product_attention(*heads), heads.device)
    found = [seconds for key, seconds in table.seconds.items() if key.startswith("scaled_dot_product_attention(")]
    assert found == [pytest.approx(alone)]
    assert not any("bmm" in key or "softmax" in key for key in table.seconds)


def test_calling_modules_takes_as_long_at_any_width():
    class Calls(FakeTimer):
        def seconds(self, run, device):
            plain = super().seconds(run, device)
            return plain if self.operators[-1] else 1.0  # what runs no operator calls a module that does nothing

    model = network()
    structure = prunekit.trace(model, IMAGE)
    narrow = {group.name: torch.arange(8) for group in structure.groups}
    with_calls, without = LatencyTable(timer=Calls()), LatencyTable(timer=FakeTimer())
    between = with_calls.total(structure, {}) - without.total(structure, {})
    assert 64 * between == pytest.approx(len(list(model.modules())))
    assert with_calls.total(structure, narrow) - without.total(structure, narrow) == pytest.approx(between)


def test_measuring_leaves_the_model_and_the_random_state_alone():
    model = network()
    structure = prunekit.trace(model, IMAGE)
    model.train()
    before = snapshot(model)
    pace = Pace.of(model, structure, LatencyTable(timer=Clock(least=1, most=1, sweep=1)))
    pace.measured(model, structure.inputs)
    assert not differences(before, snapshot(model))


def test_the_clock_runs_what_it_times_as_often_as_it_says():
    runs = []
    taken = Clock(least=3, most=3, sweep=1).seconds(lambda: runs.append(1), torch.device("cpu"))
    assert len(runs) == 4
    assert taken > 0


def test_no_latency_is_measured_or_reported_where_no_target_asks_for_it():
    timer = FakeTimer()
    model = network()
    assert pruned(copy.deepcopy(model), "macs<=50%", timer).report.latency is None
    assert timer.operators == []


class Elsewhere(FakeTimer):
    """What runs takes more or less than its operators by a factor that changes with widths: no one factor says it."""

    def __init__(self, bent):
        super().__init__()
        self.bent, self.whole = bent, None

    def seconds(self, run, device):
        plain = super().seconds(run, device)
        if self.operators[-1] == 1:
            return plain
        self.whole = self.whole or plain
        return self.whole * (plain / self.whole) ** self.bent


@pytest.mark.parametrize("bent", [0.7, 1.3])
@pytest.mark.parametrize("percent", [75, 50])
def test_a_prediction_that_is_off_is_corrected_by_the_clock(bent, percent):
    model = network()
    before = snapshot(model)
    structure = prunekit.trace(model, IMAGE)
    result = pruned(model, f"latency<={percent}%", Elsewhere(bent))
    took = result.report.latency
    assert abs(took["after"] / took["before"] / (percent / 100) - 1) <= 0.03
    assert abs(took["predicted"] / took["before"] / (percent / 100) - 1) > 0.04, "the table alone would have missed it"
    clock = Elsewhere(bent)
    after = seconds_of(model, structure.inputs, clock)
    result.undo()
    assert [k for k in differences(before, snapshot(model)) if k != "rng"] == []
    whole = seconds_of(model, structure.inputs, FakeTimer())
    assert took["after"] == pytest.approx(whole * (after / whole) ** bent)
    assert any("plans timed" in note for note in result.report.notes)


def test_a_limit_that_no_plan_meets_is_told_by_how_much():
    """The clock that does not move with widths: the narrowest plan that could be made is taken, and nothing hidden."""
    result = pruned(network(), "latency<=60%", Elsewhere(0.05))
    took = result.report.latency
    assert took["after"] > 0.8 * took["before"]
    (note,) = [note for note in result.report.notes if note.startswith("latency")]
    assert "over it" in note


def test_where_another_limit_binds_no_further_plan_is_made():
    timer = FakeTimer()
    result = pruned(network(), "latency<=90%, params<=20%", timer)
    assert result.report.latency["after"] < 0.6 * result.report.latency["before"]
    (note,) = [note for note in result.report.notes if note.startswith("latency")]
    assert "1 plan timed" in note
    assert "within it" in note


def test_a_plan_is_timed_on_a_model_that_is_put_back():
    """``prunekit.plan`` times too: model, random state and what an optimizer knows are as they were."""
    model = network()
    before = snapshot(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    table = LatencyTable(timer=Elsewhere(1.3))
    plan = prunekit.plan(
        model, IMAGE, target="latency<=60%", latency=table, verify="shapes", scorer=prunekit.Magnitude()
    )
    assert plan.cuts
    assert differences(before, snapshot(model)) == []
    model(IMAGE).sum().backward()
    optimizer.step()


@dataclass(frozen=True)
class PaceSaid:
    """Predicts a plan's own number; the clock says something else."""

    whole: float = 1.0
    quantity: str = "latency"
    table: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(timer=None))

    def seconds(self, structure, kept):
        return kept


@dataclass(frozen=True)
class GaugeSaid:
    limits: dict
    pace: PaceSaid = field(default_factory=PaceSaid)


def test_plans_are_enclosed_by_the_nearest_on_each_side(monkeypatch):
    asked = []
    took = iter([0.70, 0.42, 0.80, 0.502])  # beside a limit of 0.5: over, under, further over than the first, met

    def attempt(gauge):
        asked.append(gauge.limits["latency"])
        made = SimpleNamespace(cuts=(len(asked),), number=len(asked))
        return (made, asked[-1], ()), []

    monkeypatch.setattr(on_the_clock, "share_of", lambda *given: (next(took), 0.001))
    _, timing = on_the_clock.met_on_the_clock(None, None, GaugeSaid({"latency": 0.5}), attempt)
    assert timing.off == pytest.approx(0.004)
    over, under = asked[0], asked[1]
    assert under < asked[2] < over
    nearest = under + (over - under) * (0.5 - 0.42) / (0.70 - 0.42)
    assert asked[3] == pytest.approx(nearest)  # and not between the second and the third


@pytest.mark.parametrize("bent", [0.7, 1.3])
def test_a_measured_allocation_is_held_against_the_clock_too(bent):
    model, samples = network(), [IMAGE[:1], IMAGE[1:]]
    before = snapshot(model)
    asked = {"allocation": "measured", "data": samples}
    result = pruned(model, "latency<=60%", Elsewhere(bent), **asked)
    took = result.report.latency
    assert abs(took["after"] / took["before"] / 0.6 - 1) <= 0.03
    assert took["noise"] == 0.0
    assert [note for note in result.report.notes if "plans timed" in note]
    result.undo()
    assert [k for k in differences(before, snapshot(model)) if k != "rng"] == []


class Adding(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(x)))


@pytest.mark.parametrize("roles", [["depth.*"], ["depth.*", "mlp.hidden"]])
def test_depth_within_a_latency_is_held_against_the_clock(roles):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), *(Adding() for _ in range(6)), nn.Linear(16, 2)).eval()
    samples = [torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    how = prunekit.Measured(samples=4, widths=(0.75, 0.5, 0.25), sets=2, rounds=0)
    asked = {"roles": roles, "data": samples, "allocation": how, "scorer": "random"}
    table = LatencyTable(timer=Elsewhere(0.8))
    result = prunekit.prune(model, samples[0], target="latency<=70%", latency=table, verify="shapes", **asked)
    took = result.report.latency
    assert took["after"] <= 0.71 * took["before"], result.report.notes
    (note,) = [note for note in result.report.notes if note.startswith("latency")]
    assert "within it" in note
