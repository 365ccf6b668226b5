"""Number formats, devices and modes: what a model is made of stays what it was."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.compare import differences, distance, masked, run, snapshot
from support.drafts import draft
from support.whole import check
from torch import nn

import prunekit
from prunekit.errors import PlanError, ScorerError, TraceError
from prunekit.planning.symmetry_check import symmetry


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 10), nn.LayerNorm(10), nn.ReLU(), nn.Linear(10, 3))


def convolutions():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8), nn.Flatten(),
        nn.Linear(128, 3),
    )  # fmt: skip


def attention():
    block = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, dropout=0.0)
    return nn.Sequential(nn.Linear(6, 16), block, nn.Linear(16, 3))


MODELS = {
    "linear": (mlp, (2, 6)),
    "convolutions": (convolutions, (2, 3, 8, 8)),
    "attention": (attention, (2, 5, 6)),
    "recurrent": (lambda: LastState(), (2, 5, 6)),
}


class LastState(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent, self.head = nn.GRU(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.recurrent(x)[0][:, -1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_keeps_its_number_format(name, dtype):
    make, shape = MODELS[name]
    torch.manual_seed(0)
    model, x = make().to(dtype), torch.randn(shape).to(dtype)
    before = snapshot(model)
    result = prunekit.prune(model, x)
    assert result.report.verify["symmetry"] == "passed", result.report.verify
    assert result.report.params["after"] < result.report.params["before"]
    assert {t.dtype for t in model.state_dict().values() if t.is_floating_point()} == {dtype}
    assert run(model, x)[0].dtype is dtype
    result.undo()
    # running norms and counters were moved by our own forward in training mode, nothing else was
    assert [k for k in differences(before, snapshot(model)) if k[-1] != "_buffers" and k != "rng"] == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_wrong_coupling_is_seen_in_half_precision(dtype):
    """The looser arithmetic must not hide a broken group."""
    torch.manual_seed(0)
    model, x = mlp().to(dtype), torch.randn(2, 6).to(dtype)
    structure = prunekit.trace(model, x)
    group = next(g for g in structure.groups if g.name == "0.weight:0")
    wrong = type(group)(group.name, group.role, group.size, tuple(m for m in group.members if m.axis == 0))
    assert symmetry(model, [group], structure.inputs).passed
    assert not symmetry(model, [wrong], structure.inputs).passed


def test_parts_in_other_formats_keep_theirs():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 10).to(torch.bfloat16)
            self.norm, self.c = nn.LayerNorm(10), nn.Linear(10, 3)

        def forward(self, x):
            return self.c(self.norm(self.b(F.relu(self.a(x)).to(torch.bfloat16)).float()))

    torch.manual_seed(0)
    model = Mixed()
    result = prunekit.prune(model, torch.randn(2, 6))
    assert result.report.verify["symmetry"] == "passed", result.report.verify
    assert (model.a.weight.dtype, model.b.weight.dtype) == (torch.float32, torch.bfloat16)
    assert model.b.weight.shape == (5, 4)


class Narrow(nn.Module):
    """A float64 model with a norm in float32, as many language models have it."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 32), nn.Linear(32, 32), nn.Linear(32, 3)

    def norm(self, x):
        y = x.float()
        return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)

    def forward(self, x):
        x = self.a(x)
        for _ in range(4):
            x = x + self.b(self.norm(x))
        return self.c(self.norm(x))


def test_a_part_in_float32_breaks_no_symmetry_of_a_float64_model():
    torch.manual_seed(0)
    model, x = Narrow().double(), torch.randn(2, 6).double()
    structure = prunekit.trace(model, x)
    assert all(symmetry(model, structure.groups, structure.inputs, seed=seed).passed for seed in range(10))


class Spectrum(nn.Module):
    """Complex linear layers; ``real`` takes the real part where the other takes the size."""

    def __init__(self, real):
        super().__init__()
        self.real = real
        self.a, self.b = nn.Linear(6, 8, dtype=torch.cfloat), nn.Linear(8, 10, dtype=torch.cfloat)
        self.c = nn.Linear(10, 3)

    def forward(self, x):
        y = self.b(torch.tanh(self.a(x.to(torch.cfloat))))
        return self.c(y.real if self.real else y.abs())


def test_complex_weights_have_a_magnitude():
    prunekit.plan(Spectrum(True), torch.randn(2, 6))


@pytest.mark.parametrize("real", [True, False])
def test_complex_parameters_shrink(real):
    torch.manual_seed(0)
    model, x = Spectrum(real), torch.randn(2, 6)
    made = draft(model, x, scorer=prunekit.Random(seed=0))
    assert made.symmetry is not None
    assert made.symmetry.passed
    expected = run(masked(model, made.structure.groups, made.kept), x)
    prunekit.apply(model, made.plan)
    assert distance(expected, run(model, x)) < 1e-6
    assert (model.a.weight.shape, model.b.weight.shape) == ((4, 6), (5, 4))
    assert model.a.weight.is_complex()


def test_a_filter_in_the_frequency_domain_shrinks_in_its_channels():
    class Filter(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Linear(8, 3)
            self.weight = nn.Parameter(torch.randn(8, 8, 5, 2))

        def forward(self, x):
            y = torch.fft.rfft2(self.a(x)) * torch.view_as_complex(self.weight)
            return self.head(F.relu(self.b(torch.fft.irfft2(y, s=x.shape[-2:]))).mean((2, 3)))

    model, _, _ = check(Filter, torch.randn(2, 3, 8, 8).double(), torch.randn(3, 3, 8, 8).double())
    assert model.weight.shape == (4, 8, 5, 2)


def test_a_model_without_weights_is_planned_by_a_scorer_that_needs_none():
    with torch.device("meta"):
        model = mlp()
    inputs = torch.randn(2, 6)
    before = snapshot(model)
    for x in (inputs, inputs.to("meta")):
        plan = prunekit.plan(model, x, scorer=prunekit.Random(seed=0))
        assert [(w.before, w.after) for w in plan.widths] == [(8, 4), (10, 5)]
    with pytest.raises(ScorerError, match=r"(?s)DisturbedTaylor.*meta device.*prunekit\.Random"):
        prunekit.plan(model, inputs)
    with pytest.raises(PlanError, match=r"(?s)meta device and has no weights to cut.*prunekit\.plan"):
        prunekit.prune(model, inputs)
    assert differences(before, snapshot(model)) == []
    real = mlp()
    prunekit.apply(real, plan)
    assert run(real, inputs)[0].shape == (2, 3)


def test_frozen_parameters_inference_tensors_and_modes_stay():
    torch.manual_seed(0)
    model, x = mlp().train(), torch.randn(2, 6)
    for p in model.parameters():
        p.requires_grad_(False)
    model[3].eval()
    prunekit.prune(model, x)
    assert [m.training for m in model] == [True, True, True, False, True, True]
    assert not any(p.requires_grad for p in model.parameters())
    with torch.inference_mode():
        model = mlp()
    prunekit.prune(model, x)
    assert model[2].weight.shape == (5, 4)


@pytest.mark.parametrize("how", ["prune", "plan and apply"])
def test_a_call_under_inference_mode_is_as_outside(how):
    """Operators, criteria with gradients on the caller's data, and weights that can be trained afterwards."""
    torch.manual_seed(0)
    model, outside = mlp(), mlp()
    outside.load_state_dict(model.state_dict())
    data = [torch.randn(2, 6) for _ in range(3)]
    wanted = prunekit.prune(outside, data[0], data=data).plan
    with torch.inference_mode():
        given = [x.clone() for x in data]
        assert given[0].is_inference()
        if how == "prune":
            assert prunekit.prune(model, given[0], data=given).plan == wanted
        else:
            prunekit.apply(model, prunekit.plan(model, given[0], data=given))
        assert torch.is_inference_mode_enabled()
    assert not any(p.is_inference() for p in model.parameters())
    model(data[0]).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), outside.parameters(), strict=True))


def test_what_an_operator_of_a_plain_container_is_called_from_is_the_callers_line():
    structure = prunekit.trace(mlp(), torch.randn(2, 6))
    assert all("contextlib" not in call.source for call in structure.trace.calls)


def test_gradients_come_back_with_undo():
    torch.manual_seed(0)
    model, x = mlp(), torch.randn(2, 6)
    model(x).sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters()}
    result = prunekit.prune(model, x)
    assert all(p.grad is None or p.grad.shape == p.shape for p in model.parameters())
    result.undo()
    assert all(p.grad is gradients[n] for n, p in model.named_parameters())


def test_a_module_under_two_names_is_cut_once():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.inp, self.left = nn.Linear(6, 8), nn.Linear(8, 8)
            self.right, self.norm, self.head = self.left, nn.LayerNorm(8), nn.Linear(8, 3)
            self.again = self.norm

        def forward(self, x):
            x = self.norm(F.relu(self.left(self.inp(x))))
            return self.head(self.again(F.relu(self.right(x))))

    model, _, _ = check(Two, torch.randn(2, 6).double(), torch.randn(5, 6).double(), by_mask=False)
    assert model.left is model.right
    assert model.left.weight.shape == (4, 4)


def test_a_complex_output_is_compared_as_two_numbers():
    class Wave(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 8, dtype=torch.cfloat), nn.Linear(8, 3, dtype=torch.cfloat)

        def forward(self, x):
            return self.b(torch.tanh(self.a(x.to(torch.cfloat))))

    torch.manual_seed(0)
    model, x = Wave(), torch.randn(2, 6)
    result = prunekit.prune(model, x)
    assert result.report.verify["symmetry"] == "passed"
    assert run(model, x)[0].is_complex()


class Autocast(nn.Module):
    """Leaves autocast where it matters, as rotary embeddings do, by the device of what it is given."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 4)

    def forward(self, x):
        with torch.autocast(x.device.type, enabled=False), torch.autocast(device_type=x.device.type, enabled=False):
            x = self.up(x.float())
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            return self.down(x.relu())


def test_autocast_by_the_device_of_a_stand_in():
    model, x = Autocast().eval(), torch.randn(2, 8)
    autocast, asked = torch.autocast.__init__, torch.is_autocast_enabled
    result = prunekit.prune(model, x, ratio=0.5, scorer="magnitude")
    assert not [frozen for frozen in result.plan.frozen if frozen.name.startswith("up")]
    assert model.up.out_features == 16
    assert model(x).dtype is torch.bfloat16
    assert (torch.autocast.__init__, torch.is_autocast_enabled) == (autocast, asked)


class Typed(nn.Module):
    """Brings a table to the type of its activations by name, as code from before ``dtype`` does."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 4)
        self.register_buffer("table", torch.ones(32, dtype=torch.float64))

    def forward(self, x):
        x = self.up(x).type(torch.FloatTensor).type(dtype=torch.float32)
        x = x + self.table.type(x.type())
        return self.down(x.type("torch.FloatTensor"))


def test_types_by_the_name_of_a_stand_in():
    model, x = Typed().eval(), torch.randn(2, 8)
    result = prunekit.prune(model, x, ratio=0.5, scorer="magnitude")
    assert result.report.verify["symmetry"] == "passed"
    assert model.up.out_features == len(model.table) == 16
    assert "type" not in vars(torch.Tensor)


def test_a_type_that_does_not_exist_is_the_models_own_fault():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    model[0].register_forward_hook(lambda module, given, out: out.type("torch.NoSuchTensor"))
    with pytest.raises(TraceError, match="invalid type"):
        prunekit.trace(model, torch.randn(2, 8))
    assert "type" not in vars(torch.Tensor)
