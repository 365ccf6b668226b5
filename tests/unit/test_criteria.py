"""Every criterion against plain loops on small models."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import prunekit
from prunekit.errors import InputError, ScorerError
from prunekit.inputs import Inputs, Sample
from prunekit.scorers import (
    FPGM,
    LAMP,
    OBD,
    Activation,
    BatchNormScale,
    Fisher,
    GroupNorm,
    Saliency,
    Scorer,
    Statistics,
    Taylor,
    Wanda,
)
from prunekit.scorers.normalisers import lamp_scores

ROWS = 5


class Mlp(nn.Module):
    def __init__(self, reads=4, hidden=6, gives=3):
        super().__init__()
        self.a = nn.Linear(reads, hidden)
        self.b = nn.Linear(hidden, gives)

    def forward(self, x):
        return self.b(self.a(x).tanh())


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1, stride=2)
        self.n = nn.BatchNorm2d(6)
        self.d = nn.Conv2d(6, 6, 3, groups=6)
        self.b = nn.Conv2d(6, 4, 1)

    def forward(self, x):
        return self.b(self.d(self.n(self.a(x)).relu()).relu()).mean((2, 3))


def loss(output, target):
    return (output - target).square().sum()


def setting(kind):
    """(model, its hidden group, samples, statistics)."""
    torch.manual_seed(3)
    model = Mlp().eval() if kind == "mlp" else Conv().eval()
    shape = (ROWS, 4) if kind == "mlp" else (2, 3, 9, 9)
    if kind == "conv":
        nn.init.uniform_(model.n.weight, -1, 1)
        nn.init.uniform_(model.n.running_mean, -0.2, 0.2)
    x = [torch.randn(shape) for _ in range(3)]
    samples = [Sample(Inputs((i,)), torch.randn_like(model(i))) for i in x]
    group = prunekit.trace(model, x[0]).group("a.weight:0")
    return model, group, samples, Statistics(model, samples)


def weights_of(group, model):
    """[(tensor, axis)] of the group's parameters."""
    state = dict(model.named_parameters())
    return [(m.tensor, state[m.tensor].detach(), m.axis) for m in group.parameters]


def per_unit(tensor, axis, unit):
    return tensor.select(axis, unit)


def expected(scorer, model, group, samples):
    """Each criterion, written down once more with loops over units, parameters and samples."""
    entries = weights_of(group, model)
    if isinstance(scorer, GroupNorm):
        return [math.sqrt(sum(float(per_unit(w, a, u).square().sum()) for _, w, a in entries)) for u in range(6)]
    if isinstance(scorer, LAMP):
        norms = [sum(float(per_unit(w, a, u).square().sum()) for _, w, a in entries) for u in range(6)]
        return [n / sum(m for m in norms if m >= n) for n in norms]
    if isinstance(scorer, FPGM):
        wide = [(w, a) for _, w, a in entries if w.ndim > 1]
        return [
            sum(
                sum(float((per_unit(w, a, u) - per_unit(w, a, v)).square().sum().sqrt()) for v in range(6))
                for w, a in wide
            )
            / len(wide)
            for u in range(6)
        ]
    if isinstance(scorer, BatchNormScale):
        return [abs(float(model.n.weight.detach()[u])) for u in range(6)]
    gradients = []
    for sample in samples:
        model.zero_grad()
        y = model(*sample.inputs.args)
        value = y.square().mean() / 2 if isinstance(scorer, Saliency) else loss(y, sample.target)
        value.backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters()})
    if isinstance(scorer, (Fisher, Saliency)):
        factor = 0.5 if isinstance(scorer, Fisher) else 1.0
        return [
            factor
            * sum(
                float(((per_unit(w, a, u) * per_unit(g[n], a, u)) ** 2).sum()) / len(samples)
                for n, w, a in entries
                for g in gradients
            )
            for u in range(6)
        ]
    raise AssertionError(scorer)


WEIGHT_ONLY = [GroupNorm(), LAMP(), FPGM()]


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("scorer", [*WEIGHT_ONLY, Fisher(loss=loss), Saliency()], ids=lambda s: type(s).__name__)
def test_against_loops(kind, scorer):
    model, group, samples, statistics = setting(kind)
    wanted = torch.tensor(expected(scorer, model, group, samples), dtype=torch.float64)
    torch.testing.assert_close(scorer.score(group, statistics), wanted, rtol=1e-4, atol=1e-9)


def test_batch_norm_scale():
    model, group, samples, statistics = setting("conv")
    wanted = torch.tensor(expected(BatchNormScale(), model, group, samples), dtype=torch.float64)
    torch.testing.assert_close(BatchNormScale().score(group, statistics), wanted)
    _, other, _, without = setting("mlp")
    with pytest.raises(ScorerError, match="no batch norm reads"):
        BatchNormScale().score(other, without)


def test_obd_is_exact_where_the_hessian_is_diagonal_and_converges_elsewhere():
    """sum of (w x - t)^2 has the diagonal 2 x^2; a full Hessian is met by enough probes."""

    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))

        def forward(self, x):
            return self.w * x

    x = torch.tensor([[1.0, 2.0, 0.5]])
    group = prunekit.Group("w:0", "channels", 3, (prunekit.Member("w", 0, torch.arange(3)),))
    found = OBD(loss=loss).score(group, Statistics(Scale(), [Sample(Inputs((x,)), torch.zeros(1, 3))]))
    torch.testing.assert_close(found, torch.tensor([1.0, 16.0, 2.25], dtype=torch.float64))

    torch.manual_seed(3)
    model = Mlp(4, 4, 4).eval()
    with torch.no_grad():  # of these weights and so many rows the diagonal is large beside the rest: fewer probes do
        for parameter in model.parameters():
            parameter.normal_()
    samples = [Sample(Inputs((torch.randn(64, 4),)), torch.randn(64, 4)) for _ in range(2)]
    group = prunekit.trace(model, samples[0].inputs.args[0]).group("a.weight:0")
    statistics = Statistics(model, samples)
    wanted = torch.zeros(4, dtype=torch.float64)
    state = dict(model.named_parameters())
    for name, w, axis in weights_of(group, model):
        diagonal = torch.zeros_like(w)
        for sample in samples:

            def at(value, name=name, sample=sample):
                given = {**{n: p.detach() for n, p in state.items()}, name: value}
                return loss(torch.func.functional_call(model, given, sample.inputs.args), sample.target)

            full = torch.autograd.functional.hessian(at, w).reshape(w.numel(), w.numel())
            diagonal += full.diagonal().view_as(w) / len(samples)
        wanted += 0.5 * (diagonal.abs() * w.square()).movedim(axis, 0).reshape(4, -1).sum(1).double()
    found = OBD(loss=loss, probes=300).score(group, statistics)
    torch.testing.assert_close(found, wanted, rtol=0.15, atol=1e-3)
    few = OBD(loss=loss, probes=4).score(group, statistics)
    assert (found - wanted).norm() < (few - wanted).norm()


def test_who_looks_at_operators_of_the_model_sees_none_of_its_statistics():
    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.add(str(func.overloadpacket))
            return func(*args, **(kwargs or {}))

    seen, (*_, statistics) = set(), setting("mlp")
    with Names():
        statistics.activations()
    assert "aten.tanh" in seen
    assert not seen & {"aten.square", "aten.pow", "aten.gt"}


def test_wanda_against_loops():
    model, group, samples, statistics = setting("mlp")
    x = torch.cat([s.inputs.args[0] for s in samples])
    h = model.a(x).tanh().detach()
    a = model.a.weight.detach().abs() * x.square().mean(0).sqrt()
    b = model.b.weight.detach().abs() * h.square().mean(0).sqrt()
    wanted = (a.mean(1) + b.mean(0)) / 2
    torch.testing.assert_close(Wanda().score(group, statistics), wanted.double(), rtol=1e-5, atol=0)


def test_wanda_of_convolutions_against_loops():
    """A depthwise convolution's weight meets its own channel only."""
    model, group, samples, statistics = setting("conv")
    x = torch.cat([s.inputs.args[0] for s in samples])
    n = model.n(model.a(x)).relu().detach()
    d = model.d(n).relu().detach()

    def rms(t):
        return t.square().mean((0, 2, 3)).sqrt()

    a = (model.a.weight.detach().abs() * rms(x).view(1, 3, 1, 1)).mean((1, 2, 3))
    depth = (model.d.weight.detach().abs() * rms(n).view(6, 1, 1, 1)).mean((1, 2, 3))
    b = (model.b.weight.detach().abs() * rms(d).view(1, 6, 1, 1)).mean((0, 2, 3))
    torch.testing.assert_close(Wanda().score(group, statistics), ((a + depth + b) / 3).double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("measure", ["mean", "apoz"])
def test_activation_against_loops(measure):
    model, group, samples, statistics = setting("conv")
    x = torch.cat([s.inputs.args[0] for s in samples])
    n = model.n(model.a(x)).relu().detach()
    d = model.d(n).relu().detach()

    def of(t):
        values = t.abs() if measure == "mean" else (t > 0).float()
        return values.double().mean((0, 2, 3))

    torch.testing.assert_close(Activation(measure=measure).score(group, statistics), (of(n) + of(d)) / 2)


def test_activation_of_units_that_no_parameter_reads_is_what_is_written():
    """Queries and keys meet each other, not a weight."""

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k = nn.Linear(4, 6, bias=False), nn.Linear(4, 6, bias=False)

        def forward(self, x):
            return self.q(x) @ self.k(x).transpose(1, 2)

    torch.manual_seed(0)
    model, x = Pair().eval(), torch.randn(1, 5, 4)
    group = prunekit.trace(model, x).groups[0]
    found = Activation().score(group, Statistics(model, [Sample(Inputs((x,)))]))
    wanted = (model.q(x).abs().mean((0, 1)) + model.k(x).abs().mean((0, 1))) / 2
    torch.testing.assert_close(found, wanted.detach().double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("scorer", [Taylor(), Fisher(), OBD()], ids=lambda s: type(s).__name__)
def test_a_scorer_that_needs_labels_says_so(scorer):
    _, group, _, statistics = setting("mlp")
    with pytest.raises(ScorerError, match=f"{type(scorer).__name__} needs a loss"):
        scorer.score(group, statistics)


@pytest.mark.parametrize(
    "make",
    [
        lambda: OBD(probes=0),
        lambda: Activation(measure="median"),
        lambda: Wanda(across="none"),
        lambda: FPGM(across="none"),
        lambda: BatchNormScale(across="none"),
        lambda: Fisher(across="none"),
        lambda: Saliency(across="none"),
    ],
)
def test_settings_are_checked(make):
    with pytest.raises((InputError, prunekit.PrunekitError)):
        make()


def test_every_scorer_says_what_it_needs_and_leaves_the_model_alone():
    from prunekit.registry import known_scorers

    for name, make in known_scorers().items():
        scorer: Scorer = make()
        assert scorer.needs.data, name
        assert scorer.needs.cost, name
    model, group, samples, _ = setting("conv")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for scorer in [Wanda(), Activation(), OBD(loss=loss), Saliency(), Fisher(loss=loss)]:
        found = scorer.score(group, Statistics(model, samples))
        assert found.shape == (6,)
        assert bool(torch.isfinite(found).all())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert all(p.grad is None for p in model.parameters())


def test_no_samples():
    model, group, _, _ = setting("mlp")
    for scorer in (Wanda(), Activation(), OBD(loss=loss)):
        with pytest.raises(ScorerError, match="no calibration sample"):
            scorer.score(group, Statistics(model, []))


def test_activations_that_are_not_finite_are_named():
    model, group, samples, _ = setting("mlp")
    samples[0].inputs.args[0][0, 0] = math.inf
    with pytest.raises(ScorerError, match=r"a\.weight is not finite"):
        Wanda().score(group, Statistics(model, samples))


def test_lamp_keeps_the_order_and_scales_the_largest_to_one():
    scores = torch.tensor([3.0, 1.0, 2.0, 2.0, 0.0], dtype=torch.float64)
    found = lamp_scores(scores)
    assert found.max() == 1
    assert found[0] > found[2] == found[3] > found[1] > found[4] == 0
    assert found[2] == 4 / 17  # both of the equal ones are no smaller
    shifted = lamp_scores(scores - 5)
    assert torch.equal(torch.argsort(shifted, stable=True), torch.argsort(scores, stable=True))
