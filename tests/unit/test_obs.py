"""OBS: the error that a unit's going leaves after a refit, against the refit itself, one unit after the other."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import prunekit
from prunekit.errors import InputError, ScorerError
from prunekit.inputs import as_samples
from prunekit.scorers import OBS, Statistics
from prunekit.scorers.elimination import Reader, eliminated


def moments(features, seed):
    x = torch.randn(4 * features, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.t() @ x / len(x) + 1e-2 * torch.eye(features, dtype=torch.float64)


def error(weight, second, owner, gone):
    """What a least-squares fit of the features that are left cannot give of ``weight`` x."""
    goes = torch.tensor([int(unit) in gone for unit in owner])
    missing, left = second[goes][:, goes], ~goes
    if bool(left.any()):
        missing = missing - second[goes][:, left] @ torch.linalg.solve(second[left][:, left], second[left][:, goes])
    return float(((weight[:, goes] @ missing) * weight[:, goes]).sum())


@st.composite
def systems(draw):
    """Readers of the same units: each with features of its own for every unit, and some that stay."""
    units = draw(st.integers(1, 7))
    found = []
    for seed in range(draw(st.integers(1, 3))):
        owner = [unit for unit in range(units) for _ in range(draw(st.integers(0, 3)))]
        owner = torch.tensor(owner + [-1] * draw(st.integers(0, 2)), dtype=torch.long)
        if not len(owner):
            continue
        weight = torch.randn(draw(st.integers(1, 4)), len(owner), generator=torch.Generator().manual_seed(seed + 9))
        found.append((weight.double(), moments(len(owner), seed), owner))
    return units, found


@given(systems())
def test_each_time_the_unit_goes_that_leaves_the_least_error(drawn):
    units, parts = drawn
    if not parts:
        return
    found = eliminated([Reader(w[None], torch.linalg.inv(c)[None], owner) for w, c, owner in parts], units)
    gone, before = set(), 0.0
    for unit in found.argsort().tolist():
        after = {u: sum(error(*part, {*gone, u}) for part in parts) for u in range(units) if u not in gone}
        assert after[unit] == pytest.approx(min(after.values()), rel=1e-8, abs=1e-12)
        assert found[unit] >= after[unit] - before - 1e-9
        gone.add(unit)
        before = after[unit]
    assert all(a < b for a, b in pairwise(found.sort().values.tolist()))


def test_many_at_once_leave_nearly_what_one_after_the_other_does():
    torch.manual_seed(0)
    second = torch.randn(300, 300, dtype=torch.float64) / 17 + torch.eye(300, dtype=torch.float64)
    second = second @ second.t()
    weight, owner = torch.randn(40, 300, dtype=torch.float64), torch.arange(300)
    reader = Reader(weight[None], torch.linalg.inv(second)[None], owner)
    left = {}
    for wide in (128, 300):
        order = eliminated([reader], 300, wide=wide).argsort()
        left[wide] = [error(weight, second, owner, set(order[:n].tolist())) for n in (60, 150, 240)]
    by_size = weight.square().sum(0).argsort()
    for n, quick, exact in zip((60, 150, 240), left[128], left[300], strict=True):
        assert quick <= 1.02 * exact < error(weight, second, owner, set(by_size[:n].tolist()))


class Perceptron(nn.Module):
    def __init__(self, bias=True):
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = nn.Linear(6, 8, bias=bias), nn.Linear(8, 3, bias=bias)

    def forward(self, x):
        return self.down(self.up(x).relu())


class Convolutional(nn.Module):
    """Units that are read by a kernel, by groups, and flattened."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, bias=False)
        self.norm, self.grouped = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=2)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.norm(self.second(self.first(x).relu())).relu()
        return self.head(self.grouped(x).relu().flatten(1))


VECTORS = [torch.randn(4, 6, generator=torch.Generator().manual_seed(n)) for n in range(12)]
IMAGES = [torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(n)) for n in range(24)]


def scored(model, data, name, scorer=OBS(), **more):
    structure = prunekit.trace(model, data[0])
    group = next(g for g in structure.groups if g.name == name)
    return scorer.score(group, Statistics(model, list(as_samples(data, structure.inputs)), **more))


@pytest.mark.parametrize("bias", [True, False])
def test_a_score_is_what_least_squares_leave_of_the_reader(bias):
    model = Perceptron(bias)
    found = scored(model, VECTORS, "up.weight:0", OBS(strength=1e-9))
    with torch.no_grad():
        x = model.up(torch.cat(VECTORS)).relu().double()
        whole = x @ model.down.weight.double().t()
        x, whole = (x - x.mean(0), whole - whole.mean(0)) if bias else (x, whole)  # a bias takes the mean
    first = int(found.argmin())
    rest = [unit for unit in range(8) if unit != first]
    fitted = x[:, rest] @ torch.linalg.lstsq(x[:, rest], whole).solution
    assert float(found[first]) == pytest.approx(float((whole - fitted).square().sum() / whole.square().sum()), rel=1e-4)


def test_of_two_that_say_the_same_one_goes_and_the_other_is_dear():
    model = Perceptron()
    with torch.no_grad():
        for name in ("weight", "bias"):
            getattr(model.up, name)[5] = getattr(model.up, name)[2]
        model.down.weight[:, 2] *= 3
        model.down.weight[:, 5] *= 4
    order = scored(model, VECTORS, "up.weight:0").argsort().tolist()
    assert order[0] in (2, 5)
    assert order.index(7 - order[0]) > 3
    assert scored(model, VECTORS, "up.weight:0", prunekit.Wanda()).argsort().tolist()[-1] in (2, 5)


def test_what_is_never_on_costs_nothing():
    model = Perceptron()
    with torch.no_grad():
        model.up.bias[3] = -100
    found = scored(model, VECTORS, "up.weight:0")
    others = [float(value) for unit, value in enumerate(found) if unit != 3]
    assert float(found[3]) < 0.02 * min(others)  # what is left is the ridge's own


@pytest.mark.parametrize(
    ("name", "reader"), [("first.weight:0", "second"), ("second.weight:0", "grouped"), ("grouped.weight:0", "head")]
)
def test_after_a_refit_its_reader_gives_nearer_what_it_gave_than_by_chance(name, reader):
    model = Convolutional().eval()
    held = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(99))

    def given(made):
        seen = []
        with torch.no_grad(), made.get_submodule(reader).register_forward_hook(lambda *a: seen.append(a[2])):
            made(held)
        return seen[0]

    far = {}
    for key, scorer in [("obs", "obs"), *((seed, prunekit.Random(seed=seed)) for seed in range(4))]:
        made = copy.deepcopy(model)
        cut = {"scorer": scorer, "include": [name], "ratio": 0.5, "compensate": "ridge"}
        prunekit.prune(made, IMAGES[0], data=IMAGES, **cut)
        far[key] = float((given(made) - given(model)).square().mean())
    assert far["obs"] <= min(far.values()) * 1.05


def test_the_model_is_left_as_it_was_and_a_sweep_a_group_gives_the_same():
    model = Convolutional().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    groups = prunekit.trace(model, IMAGES[0]).groups
    for group in groups:
        whole = scored(model, IMAGES, group.name, groups=groups)
        small = scored(model, IMAGES, group.name, OBS(memory=16 * 72**2), groups=groups)
        assert torch.equal(whole, small)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_samples_are_swept_once_for_all_groups():
    model, calls = Convolutional().eval(), []
    model.head.register_forward_pre_hook(lambda *_: calls.append(1))
    structure = prunekit.trace(model, IMAGES[0])
    calls.clear()
    statistics = Statistics(model, list(as_samples(IMAGES, structure.inputs)), groups=structure.groups)
    for group in structure.groups:
        OBS().score(group, statistics)
    assert len(calls) == sum(map(len, IMAGES))


def test_queries_and_keys_are_scored_by_what_is_written():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0).eval()
    data = [torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(n)) for n in range(4)]
    made = copy.deepcopy(layer)
    result = prunekit.prune(made, data[0], data=data, scorer="obs", ratio=0.5)
    assert sum(p.numel() for p in made.parameters()) < sum(p.numel() for p in layer.parameters())
    result.undo()
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), layer.parameters(), strict=True))


def test_no_room_is_refused_with_the_name_and_the_size():
    with pytest.raises(ScorerError, match=r"8 features that down\.weight reads") as error:
        scored(Perceptron(), VECTORS, "up.weight:0", OBS(memory=500))
    assert "OBS(memory=)" in error.value.hint


def test_what_cannot_be_solved_is_refused():
    for wrong in ({"strength": 0.0}, {"strength": float("inf")}, {"memory": 0}):
        with pytest.raises(InputError):
            OBS(**wrong)
    bad = [VECTORS[0].clone().fill_(float("nan")), *VECTORS[1:]]
    with pytest.raises(ScorerError, match="not finite"):
        scored(Perceptron(), bad, "up.weight:0")
