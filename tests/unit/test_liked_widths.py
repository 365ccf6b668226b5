"""``align="auto"``: widths that the device's kernels want, by a table that is measured once and kept."""

from __future__ import annotations

import json

import pytest
import torch
from support.timers import FakeTimer
from torch import nn

import prunekit
from prunekit.errors import InputError
from prunekit.quantities import kernels
from prunekit.quantities.kernels import KINDS, Kernels, keep_kernels, kept_at, known_kernels, measured_kernels

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)  # platformdirs or not: the test's own folder
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kernels, "ROUNDS", 2)
    return tmp_path


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 128, 3), nn.ReLU(), nn.Conv2d(128, 24, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(24, 200), nn.ReLU(), nn.Linear(200, 5),
    ).eval()  # fmt: skip


X = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
PLAIN = {"scorer": prunekit.Magnitude(), "verify": "shapes"}


def table(conv, linear):
    return {torch.float32: Kernels({"convolution": conv, "linear": linear}, "", {kind: {1: 1.0} for kind in KINDS})}


class Blocked(FakeTimer):
    """Kernels that fill blocks of 32: a width a little above one costs as much as the next."""

    def seconds(self, run, device):
        width = run().shape[-1 if run().dim() == 2 else 1]
        return float((-(-width // 32) * 32) ** 2)


def test_the_smallest_step_that_costs_no_more_is_found():
    found = measured_kernels(CPU, torch.float32, Blocked())
    assert found.steps == {"convolution": 32, "linear": 32}
    assert min(found.costs["linear"].values()) == 1.0
    assert found.costs["linear"][1] > 1.1


def test_a_busy_machine_is_told_by_its_noise():
    class Busy(Blocked):
        def seconds(self, run, device):
            self.calls = getattr(self, "calls", 0) + 1
            return super().seconds(run, device) * 1.1**self.calls

    assert measured_kernels(CPU, torch.float32, Blocked()).noise == 0
    assert measured_kernels(CPU, torch.float32, Busy()).noise > kernels.NEAR


def test_a_kept_table_is_read_again_and_says_where_from(own_cache):
    assert "by rule" in known_kernels(CPU, torch.float32).source
    file = keep_kernels(CPU, {torch.float32: measured_kernels(CPU, torch.float32, Blocked())})
    assert file == kept_at(CPU)
    assert own_cache in file.parents
    assert [each.name for each in file.parent.iterdir()] == [file.name]
    assert known_kernels(CPU, torch.float32).steps["linear"] == 32
    assert known_kernels(CPU, torch.float32).source == "measured on this cpu"
    assert "by rule" in known_kernels(CPU, torch.bfloat16).source  # nothing was measured for it


@pytest.mark.parametrize("text", ["", "[]", '{"format": "prunekit.kernels/1"}', '{"format": "other", "types": {}}'])
def test_a_table_that_cannot_be_read_is_told_of_and_left(text, caplog):
    kept_at(CPU).parent.mkdir(parents=True)
    kept_at(CPU).write_text(text)
    assert "by rule" in known_kernels(CPU, torch.float32).source
    assert "doctor --kernels" in caplog.text


def test_a_table_of_another_torch_is_not_used():
    file = keep_kernels(CPU, table(64, 64))
    told = json.loads(file.read_text())
    told["conditions"]["torch"] = "another"
    file.write_text(json.dumps(told))
    assert "by rule" in known_kernels(CPU, torch.float32).source


def test_by_rule_halves_take_twice_the_step_on_tensor_cores():
    cuda = torch.device("cuda", 0)
    assert kernels._steps_by_rule(cuda, torch.float16) == {"convolution": 64, "linear": 64}
    assert kernels._steps_by_rule(cuda, torch.float32) == {"convolution": 32, "linear": 32}


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.7])
def test_widths_are_multiples_that_the_table_wants_and_the_report_says_so(ratio):
    keep_kernels(CPU, table(32, 16))
    result = prunekit.prune(network(), X, ratio=ratio, align="auto", **PLAIN)
    steps = {128: 32, 24: 4, 200: 16}  # of 24 units, steps of 32 would leave no choice
    assert {width.before for width in result.plan.widths} <= set(steps)
    for width in result.plan.widths:
        assert width.after % steps[width.before] == 0
    (note,) = [note for note in result.report.notes if note.startswith("align=auto")]
    assert "32 (convolution), 16 (linear); measured on this cpu" in note


def test_the_report_says_so_where_the_allocation_is_measured():
    keep_kernels(CPU, table(32, 16))
    result = prunekit.prune(network(), X, target="params<=70%", align="auto", allocation="measured", data=[X], **PLAIN)
    assert {note.split(":")[0].split("=")[0] for note in result.report.notes} >= {"align", "measured allocation"}


@pytest.mark.parametrize("percent", [70, 40])
def test_a_target_is_met_to_within_one_step(percent):
    keep_kernels(CPU, table(32, 16))
    model = network()
    structure = prunekit.trace(model, X)
    plan = prunekit.plan(model, X, target=f"params<={percent}%", align="auto", structure=structure, **PLAIN)
    most = structure.cost().params * percent / 100
    steps = {128: 32, 24: 4, 200: 16}
    widths = {w.group: (w.after, w.before) for w in plan.widths}
    kept = {group.name: widths.get(group.name, (group.size, group.size)) for group in structure.groups}
    cost = structure.cost({name: torch.arange(after) for name, (after, _) in kept.items()}).params
    assert cost <= most
    for name, (after, before) in kept.items():
        wider = {n: torch.arange(a + steps[before] * (n == name)) for n, (a, _) in kept.items()}
        assert after + steps[before] > before or structure.cost(wider).params > most


def test_heads_stay_whole_and_positions_within_them_are_eights():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = 4
            self.qkv, self.out = nn.Linear(64, 3 * 192), nn.Linear(192, 64)

        def forward(self, x):
            b, n, _ = x.shape
            q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            y = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.out(y.transpose(1, 2).reshape(b, n, -1))

    keep_kernels(CPU, table(32, 64))
    x = torch.randn(1, 5, 64)
    heads = prunekit.plan(Attention().eval(), x, ratio=0.25, roles=["attention.heads"], align="auto", **PLAIN)
    assert [width.after for width in heads.widths] == [3]
    inner = prunekit.plan(Attention().eval(), x, ratio=0.4, roles=["attention.head_dim"], align="auto", **PLAIN)
    assert all(width.after % 8 == 0 for width in inner.widths)


def test_the_default_stays_what_it_was():
    keep_kernels(CPU, table(64, 64))
    plain = prunekit.plan(network(), X, ratio=0.5, **PLAIN)
    assert any(width.after % 64 for width in plain.widths)


@pytest.mark.parametrize("wrong", ["automatic", 0, True, {"channels": "auto"}])
def test_other_words_are_refused(wrong):
    with pytest.raises(InputError, match=r"align|number of units"):
        prunekit.plan(network(), X, ratio=0.5, align=wrong, **PLAIN)
