"""What one call does, counted in operations: what nobody asked for is not done, and nothing is done twice."""

from __future__ import annotations

import gc
import sys
from fractions import Fraction

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import prunekit
from prunekit.coupling import structure as structures
from prunekit.errors import PrunekitError, ScorerError
from prunekit.modules.walk import named_modules
from prunekit.removal.certificate import Rerun
from prunekit.selection.ratio import nearest
from prunekit.tracing import modes, tape


class Residual(nn.Module):
    """Two residual blocks between two layers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16)) for _ in range(2)
        )
        self.last = nn.Linear(16, 3)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)


@pytest.fixture
def residual():
    torch.manual_seed(0)
    return Residual().eval(), torch.randn(2, 6)


def test_depth_is_looked_for_where_a_role_asks_for_it_and_once(residual, monkeypatch):
    model, x = residual
    looked = []

    def counted(*given):
        looked.append(given)
        return structures_find(*given)

    structures_find = structures.find_branches
    monkeypatch.setattr(structures, "find_branches", counted)
    structure = prunekit.trace(model, x)
    prunekit.prune(model, x, structure=structure, ratio=0.5).undo()
    prunekit.prune(model, x, target="params<=60%", scorer="magnitude").undo()
    assert not looked
    result = prunekit.prune(model, x, structure=structure, roles=["depth.mlp"], ratio=0.5)
    assert len(looked) == 1
    assert structure.depth.groups
    assert len(looked) == 1
    assert result.plan.absences


@settings(deadline=None, suppress_health_check=list(HealthCheck))  # no timings: a busy machine draws slowly
@given(
    allowed=st.lists(st.integers(1, 200), min_size=1, max_size=20, unique=True).map(sorted),
    width=st.fractions(0, 220, max_denominator=50),
)
def test_the_nearest_width_is_found_without_trying_all(allowed, width):
    assert nearest(allowed, Fraction(width), "nearest") == min(allowed, key=lambda w: (abs(w - width), -w))


class Counted:
    """Stands for a function wherever prunekit imported it, and counts its calls."""

    def __init__(self, monkeypatch, function):
        self.calls, self.function = 0, function
        for name, module in list(sys.modules.items()):
            if name.startswith("prunekit.") and getattr(module, function.__name__, None) is function:
                monkeypatch.setattr(module, function.__name__, self)

    def __call__(self, *given, **named):
        self.calls += 1
        return self.function(*given, **named)


def test_a_model_is_walked_a_few_times_a_call_and_not_at_every_step(residual, monkeypatch):
    model, x = residual
    prunekit.prune(model, x, ratio=0.25, scorer="magnitude").undo()  # what is imported late is there
    walks = Counted(monkeypatch, named_modules)
    prunekit.prune(model, x, ratio=0.5, scorer="magnitude", verify="shapes").undo()
    plain, walks.calls = walks.calls, 0
    prunekit.prune(model, x, ratio=0.5, scorer="magnitude", verify="full")
    assert plain <= 9
    assert walks.calls <= plain + 2  # one for each run of the check


class Factored(nn.Sequential):
    def factor(self):
        return 0.5


class Nosy(Residual):
    """Asks the first block for a factor, which nobody knows when its branch is gone."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Factored(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16)) for _ in range(4))
        for tensor in self.blocks[0].parameters():
            nn.init.zeros_(tensor)  # it is the first that is tried

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x * self.blocks[0].factor())


@pytest.mark.parametrize("roles", [["depth.mlp"], ["depth.block", "depth.mlp"]])
@pytest.mark.parametrize("asked", [{"ratio": 0.2}, {"ratio": 0.5}, {"ratio": 0.9}, {"target": "params<=70%"}])
def test_no_plan_of_depth_is_certified_twice(roles, asked, monkeypatch):
    torch.manual_seed(0)
    plans = []

    def certify(trial, plan, *given):
        plans.append(plan)
        return certify_once(trial, plan, *given)

    certify_once = Rerun.certify
    monkeypatch.setattr(Rerun, "certify", certify)
    try:
        prunekit.plan(Nosy().eval(), torch.randn(2, 6), roles=roles, data=[torch.randn(2, 6)], **asked)
    except PrunekitError:
        assert asked == {"ratio": 0.9}
    assert plans
    assert [plan for plan in set(plans) if plans.count(plan) > 1] == []


def test_a_weight_is_read_once_to_be_scored_and_found_finite(residual):
    model, x = residual
    structure = prunekit.trace(model, x)
    names = {member.tensor for group in structure.groups for member in group.parameters}
    weights = sum(p.numel() for name, p in model.named_parameters() if name in names)
    with Summed() as summed:
        prunekit.plan(model, x, structure=structure, ratio=0.5, scorer="magnitude", verify="shapes")
    assert summed.elements < weights / 2  # norms of its rows tell whether one is finite


def test_the_first_weight_that_is_not_finite_is_named_whatever_scores(residual):
    model, x = residual
    with torch.no_grad():
        for name in ("last.weight", "blocks.0.1.weight"):
            model.get_parameter(name)[0, 0] = torch.nan
    said = set()
    for scorer in ("magnitude", "random", "lamp", "group_norm"):
        with pytest.raises(ScorerError) as raised:
            prunekit.plan(model, x, ratio=0.5, scorer=scorer, verify="shapes")
        said.add(str(raised.value))
    assert len(said) == 1
    assert "blocks.0.1.weight" in said.pop()


class Summed(TorchDispatchMode):
    """Elements of real tensors of which one sum is made."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.sum.default and not args[0].is_meta:
            self.elements += args[0].numel()
        return func(*args, **(kwargs or {}))


def test_axes_that_are_alike_share_their_units():
    """Of a convolution, its norm and what reads them: found once, held once."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    (group,) = prunekit.trace(model, torch.randn(1, 3, 8, 8)).groups
    assert len(group.members) == 7
    assert len({id(member.unit_of) for member in group.members}) == 1


def test_source_lines_are_looked_for_inside_a_module_alone_once_it_is_known_where_it_was_called(residual, monkeypatch):
    """The same lines as by the whole way up, for operators of forward itself and of layers inside layers."""
    model, x = residual
    found = [(op.source, op.module) for op in prunekit.trace(model, x).trace.ops]
    monkeypatch.setattr(modes, "source", lambda entered: tape.source())
    assert found == [(op.source, op.module) for op in prunekit.trace(model, x).trace.ops]
    assert len({line for line, _ in found}) == 3


class Watching(nn.Sequential):
    """Notes whether cyclic garbage would be collected while it runs."""

    def forward(self, x):
        type(self).seen.append(gc.isenabled())
        return super().forward(x)


@pytest.mark.parametrize(
    ("asked", "waits"),
    [
        ({"scorer": "magnitude"}, True),
        ({"scorer": "random", "target": "params<=70%"}, True),
        ({"scorer": "magnitude", "data": [torch.randn(1, 4)]}, False),
        ({"scorer": "taylor", "data": [torch.randn(1, 4)]}, False),
        ({"scorer": "magnitude", "steps": 2}, False),
    ],
)
def test_the_collector_waits_for_a_call_that_reads_weights_alone(asked, waits, monkeypatch):
    monkeypatch.setattr(Watching, "seen", [], raising=False)
    model = Watching(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
    asked = {"ratio": 0.5, **asked} if "target" not in asked else asked
    try:
        prunekit.prune(model, torch.randn(1, 4), verify="full", **asked)
    except ScorerError:  # without a loss: it ends in the room that it is about
        assert asked["scorer"] == "taylor"
    assert gc.isenabled()
    assert all(Watching.seen) is False  # a trace always waits
    assert any(Watching.seen) is not waits


def test_only_calls_of_the_model_are_written_down(residual):
    """What the trace itself asks of tensors, such as whether one is on the meta device, is no call."""
    model, x = residual
    names = {call.name for call in prunekit.trace(model, x).trace.calls}
    assert names
    assert "__get__" not in names
