"""The ridge refit: closer to the original, exact where it can be, undone to the bit, refused in words."""

from __future__ import annotations

import copy

import pytest
import torch
from support.compare import differences, snapshot
from torch import nn

import prunekit
from prunekit.compensation import in_order
from prunekit.compensation.ridge import refitted
from prunekit.compensation.settings import STRENGTHS, Compensation
from prunekit.compensation.streamed import corrections, cut_places
from prunekit.compensation.sums import Sums
from prunekit.errors import InputError
from prunekit.modules.moments import Split

DATA = [x.unsqueeze(0) for x in torch.randn(96, 3, 16, 16, generator=torch.Generator().manual_seed(1))]
HELD_OUT = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def seeded(*layers):
    torch.manual_seed(0)
    for layer in layers:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return nn.Sequential(*layers).eval()


def cnn(norm=True, bias=True, groups=1):
    torch.manual_seed(0)

    def conv(i, o, k, groups=1):
        return nn.Sequential(
            nn.Conv2d(i, o, k, padding=k // 2, bias=bias, groups=groups),
            nn.BatchNorm2d(o) if norm else nn.Identity(),
            nn.ReLU(),
        )

    model = nn.Sequential(
        conv(3, 32, 3), conv(32, 32, 3, groups), conv(32, 24, 1), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(24 * 16, 7),
    )  # fmt: skip
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(16, 3, 16, 16))
    return model.eval()


class Attention(nn.Module):
    """One layer for queries, keys and values: three products of one parameter."""

    def __init__(self):
        super().__init__()
        self.stem, self.qkv, self.proj = nn.Linear(48, 32), nn.Linear(32, 96), nn.Linear(32, 32)
        self.fc1, self.fc2, self.head = nn.Linear(32, 64), nn.Linear(64, 32), nn.Linear(32, 5)

    def forward(self, x):
        x = self.stem(x.flatten(2).transpose(1, 2).reshape(x.shape[0], 16, 48))
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1)
        x = x + self.proj(y)
        return self.head(x + self.fc2(nn.functional.gelu(self.fc1(x))))


MODELS = {
    "norm": lambda: cnn(bias=False),
    "norm and bias": cnn,
    "plain": lambda: cnn(norm=False),
    "no bias": lambda: cnn(norm=False, bias=False),
    "grouped": lambda: cnn(groups=4),
    "depthwise": lambda: cnn(groups=32),
    "attention": lambda: (torch.manual_seed(0), Attention().eval())[1],
}


def error(model, original):
    with torch.no_grad():
        wanted = original(HELD_OUT)
        return float((model(HELD_OUT) - wanted).square().mean() / wanted.var())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scorer", [prunekit.Random(seed=0), prunekit.Magnitude()])
@pytest.mark.parametrize("how", ["ridge", "ridge-in-order"])
def test_outputs_on_inputs_that_it_has_not_seen_come_closer(name, scorer, how):
    original = MODELS[name]()
    plain, refitted = copy.deepcopy(original), copy.deepcopy(original)
    options = {"ratio": 0.4, "scorer": scorer, "verify": "shapes"}
    first = prunekit.prune(plain, HELD_OUT[:1], **options)
    before = snapshot(refitted)
    second = prunekit.prune(refitted, HELD_OUT[:1], data=DATA, compensate=how, **options)
    assert first.plan == second.plan
    assert error(refitted, original) < 0.7 * error(plain, original)
    second.undo()
    assert not differences(before, snapshot(refitted))


def test_features_that_others_can_stand_in_for_are_replaced_exactly():
    model = seeded(nn.Linear(6, 16), nn.Linear(16, 4))  # sixteen features of rank six
    original, data = copy.deepcopy(model), torch.randn(200, 6)
    prunekit.prune(
        model, data[:1], ratio=0.5, data=data[:, None], compensate=Compensation(1e-9, samples=200), verify="shapes"
    )
    assert model[0].out_features == 8
    fresh = torch.randn(50, 6)
    assert torch.allclose(model(fresh), original(fresh), atol=1e-4)


def test_one_layer_is_the_textbook_ridge_regression():
    model = seeded(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    original, data = copy.deepcopy(model), torch.randn(80, 6)
    prunekit.prune(
        model, data[:1], ratio=0.5, data=data[:, None], compensate=Compensation(0.05, samples=80), verify="shapes"
    )
    kept = [int((original[0].weight == row).all(1).nonzero()) for row in model[0].weight]
    with torch.no_grad():
        x = original[1](original[0](data))[:, kept].double()
        missing = original(data).double() - x @ original[2].weight[:, kept].double().T - original[2].bias.double()
        mean = x.mean(0)
        gram = sum(torch.outer(row - mean, row - mean) for row in x)
        cross = sum(torch.outer(m - missing.mean(0), row - mean) for m, row in zip(missing, x, strict=True))
        change = cross @ torch.linalg.inv(gram + 0.05 * gram.diagonal().mean() * torch.eye(len(kept)))
        bias = original[2].bias + missing.mean(0) - change @ mean
    assert torch.allclose(model[2].weight.double(), original[2].weight[:, kept] + change, atol=1e-5)
    assert torch.allclose(model[2].bias.double(), bias, atol=1e-5)


def test_a_norm_takes_the_intercept_where_there_is_no_bias():
    model = cnn(bias=False)
    original = copy.deepcopy(model)
    kept = prunekit.prune(
        model, HELD_OUT[:1], ratio=0.5, data=DATA, compensate="ridge", include=["0.0.weight"], verify="shapes"
    ).plan
    assert [w.group for w in kept.widths] == ["0.0.weight:0"]
    assert not torch.equal(model[1][1].running_mean, original[1][1].running_mean)
    with torch.no_grad():
        before = original[1][0](original[0](HELD_OUT)) - original[1][1].running_mean[:, None, None]
        after = model[1][0](model[0](HELD_OUT)) - model[1][1].running_mean[:, None, None]
    assert (after.mean((0, 2, 3)) - before.mean((0, 2, 3))).abs().max() < 0.05 * before.std()


def test_strength_is_chosen_on_rows_that_it_was_not_fitted_on():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 60, 40, generator=generator).double()
    noise = torch.randn(1, 60, 3, generator=generator).double()
    assert in_order._Ridge.of(x, noise, centred=True).best() >= 1
    exact = x @ torch.randn(1, 40, 3, generator=generator).double()
    assert in_order._Ridge.of(x, exact, centred=True).best() == min(STRENGTHS)


def split(x):
    """Rows (R, K), the last quarter held out."""
    found, held = Split(), len(x) // 4
    found.tried.add(x[None, : len(x) - held])
    found.held.add(x[None, len(x) - held :])
    return found


@pytest.mark.parametrize("mix", [0.0, 1.0])
def test_a_strength_from_sums_is_chosen_on_rows_that_it_was_not_fitted_on(mix):
    """Removed features that are noise are not made up for; those that others span are, as closely as can be."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 40, generator=generator).double()
    gone = torch.randn(60, 8, generator=generator).double()
    gone = (1 - mix) * gone + mix * x @ torch.randn(40, 8, generator=generator).double()
    weight = torch.randn(5, 48, generator=generator)
    rows, kept = torch.cat([x, gone], 1), torch.arange(40)
    found = refitted(split(rows), 0, weight, kept, True, None)
    missing = gone @ weight[:, 40:].double().t()
    left = (missing - x @ found.change.t() - found.intercept).square().sum()
    least = (missing - missing.mean(0)).square().sum()
    assert left < 1e-4 * least if mix else left > 0.5 * least


@pytest.mark.parametrize("outputs", [3, 300])
@pytest.mark.parametrize("gone", [2, 20])
def test_either_system_gives_the_regression_of_the_rows(outputs, gone):
    """One column for each removed feature or for each output: the same solution, that of the rows themselves."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 30, generator=generator).double() @ torch.randn(30, 30, generator=generator).double() + 1
    weight = torch.randn(outputs, 30, generator=generator)
    order = torch.randperm(30, generator=generator)
    kept, rest = order[gone:].sort().values, order[:gone].sort().values
    found = refitted(split(x), 0, weight, kept, True, 0.01)
    missing, left = x[:, rest] @ weight[:, rest].double().t(), x[:, kept]
    centred = left - left.mean(0)
    gram = centred.t() @ centred
    wanted = torch.linalg.solve(
        gram + 0.01 * gram.diagonal().mean() * torch.eye(len(kept)), centred.t() @ (missing - missing.mean(0))
    )
    assert torch.allclose(found.change, wanted.t(), atol=1e-9)
    assert torch.allclose(found.intercept, missing.mean(0) - left.mean(0) @ wanted, atol=1e-9)


def test_the_error_from_moments_is_the_error_of_the_rows():
    x, y, change = torch.randn(2, 30, 5).double(), torch.randn(2, 30, 3).double(), torch.randn(2, 5, 3).double()
    found = in_order._Moments.of(x, y).error(change)
    assert found == pytest.approx(float((y - x @ change).square().sum()))


def test_sums_that_have_no_room_together_are_taken_in_several_sweeps():
    one, several, runs = cnn(), cnn(), []
    several[0][0].register_forward_pre_hook(lambda *_: runs.append(1))
    options = {"ratio": 0.4, "verify": "shapes", "scorer": prunekit.Magnitude()}
    prunekit.prune(one, HELD_OUT[:1], data=DATA[:8], compensate=Compensation(), **options)
    structure = prunekit.trace(several, HELD_OUT[:1])
    runs.clear()
    prunekit.prune(
        several, HELD_OUT[:1], data=DATA[:8], structure=structure, compensate=Compensation(memory=1), **options
    )
    assert len(runs) > 3 * 8
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(one.parameters(), several.parameters(), strict=True))


def test_samples_of_different_sizes_are_taken_as_they_are():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    original = copy.deepcopy(model)
    rows = torch.randn(300, 6)
    pieces = [rows[None, :50], rows[None, 50:57], rows[None, 57:]]
    prunekit.prune(
        model, rows[None, :5], ratio=0.5, data=pieces, compensate=Compensation(0.01), verify="shapes",
        scorer=prunekit.Random(seed=0),
    )  # fmt: skip
    whole = copy.deepcopy(original)
    prunekit.prune(
        whole, rows[None, :5], ratio=0.5, data=[rows[None]], compensate=Compensation(0.01), verify="shapes",
        scorer=prunekit.Random(seed=0),
    )  # fmt: skip
    assert torch.allclose(model[2].weight, whole[2].weight, atol=1e-5)


def test_a_model_that_is_not_cut_is_not_changed():
    model = cnn()
    before = snapshot(model)
    prunekit.prune(model, HELD_OUT[:1], target="macs<=100%", data=DATA, compensate="ridge", verify="shapes")
    changed = differences(before, snapshot(model))
    assert all(torch.equal(a, b) for a, b in zip(cnn().parameters(), model.parameters(), strict=True)), changed


@pytest.mark.parametrize("how", ["ridge", "ridge-in-order"])
def test_a_shared_layer_that_runs_twice_is_fitted_to_both_or_left_as_it_is(how):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 4)

        def forward(self, x):
            return self.c(self.b(self.b(self.a(x)).relu()).relu())

    torch.manual_seed(0)
    model = Twice().eval()
    original, data = copy.deepcopy(model), torch.randn(64, 1, 6)
    plain = copy.deepcopy(model)
    options = {"ratio": 0.25, "verify": "shapes", "scorer": prunekit.Magnitude()}
    prunekit.prune(plain, data[0], **options)
    prunekit.prune(model, data[0], data=data, compensate=how, **options)
    assert model.b.weight.shape == (12, 12)
    assert torch.equal(model.b.weight, plain.b.weight) == (how == "ridge-in-order")
    fresh = torch.randn(200, 6)
    with torch.no_grad():
        errors = [float((made(fresh) - original(fresh)).square().mean()) for made in (model, plain)]
    assert errors[0] < 0.8 * errors[1]
    assert not torch.equal(model.c.bias, original.c.bias)


@pytest.mark.parametrize(
    ("how", "data", "says"),
    [
        ("lasso", DATA, "not a compensation"),
        ("ridge", [], "holds no sample"),
        ("ridge", [torch.randn(1, 4, 16, 16)], "shape|channels"),
        ("ridge-in-order", [torch.randn(1, 3, 16, 16), torch.randn(1, 3, 20, 20)], "cannot be joined|shape"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_changes(how, data, says):
    model = cnn()
    before = snapshot(model)
    with pytest.raises(prunekit.errors.PrunekitError, match=says):
        prunekit.prune(model, HELD_OUT[:1], data=data, compensate=how, verify="shapes")
    assert not differences(before, snapshot(model))


@pytest.mark.parametrize(
    "given", [{"strength": 0.0}, {"strength": float("nan")}, {"samples": 0}, {"rows": 0}, {"memory": 0}]
)
def test_settings_that_cannot_be_solved_are_refused(given):
    with pytest.raises(InputError, match="cannot be solved"):
        Compensation(**given)


def test_kernels_are_swept_together_as_far_as_what_they_read_has_room():
    model = seeded(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 64, 3, groups=64), nn.ReLU(), nn.Conv2d(64, 8, 1))
    plan = prunekit.plan(model, DATA[0], ratio=0.5, scorer="magnitude")
    assert cut_places(plan, model) == [("3.weight", 1)]
    how = Compensation(memory=16 * 64**2)  # what the last layer reads; the outputs of the second are no features
    sums = Sums.over(DATA, how)
    for _ in range(2):
        assert corrections(model, plan, sums).keys() == {"3.weight", "3.bias"}
    assert sums.sweeps == 1
