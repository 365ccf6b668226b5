"""What forward does beside calling layers: scripted code, tensors thrown away, comparisons, unknown calls."""

import logging

import pytest
import torch
from torch import nn
from torch.ao.quantization import FakeQuantize, MovingAveragePerChannelMinMaxObserver

import prunekit
from prunekit.graph.provenance import TracedInt
from prunekit.operators import Operator


def script(function):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(function)


def _gated(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(x) * torch.tanh(y)


class _Squared(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) * x


class Scripted(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(16, 64), nn.Linear(16, 64), nn.Linear(64, 4)
        self.gated, self.squared = script(_gated), script(_Squared())

    def forward(self, x):
        return self.out(self.squared(self.gated(self.a(x), self.b(x))))


class Parts(nn.Module):
    """Takes parts by narrow, with names; makes a tensor that it throws away; compares sizes with floats and tensors."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.k = nn.Linear(8, 32), nn.Linear(16, 4), 16

    def forward(self, x):
        h = self.a(x)
        torch.zeros(h.shape).ones_like if False else torch.ones(h.size())
        assert h.shape[1] // self.k == 2.0
        assert x.shape[1] == torch.tensor(8)
        left = torch.narrow(h, dim=1, start=0, length=self.k)
        return self.b(left * h.narrow(1, start=self.k, length=self.k).sigmoid())


class Fake(nn.Module):
    """Weights on a grid whose scales and zero points are one a channel, found by an observer that runs in eval too."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.out = layer, nn.Linear(32, 6)
        observer = MovingAveragePerChannelMinMaxObserver
        grid = {"quant_min": -128, "quant_max": 127, "dtype": torch.qint8, "qscheme": torch.per_channel_symmetric}
        self.quantise = FakeQuantize(observer, ch_axis=0, **grid)

    def forward(self, x):
        w = self.quantise(self.layer.weight)
        linear = isinstance(self.layer, nn.Linear)
        y = nn.functional.linear(x, w) if linear else nn.functional.conv1d(x, w).mean(-1)
        return self.out(torch.relu(y))


def test_scripted_functions_and_modules_are_followed():
    model, x = Scripted().eval(), torch.randn(2, 16)
    prunekit.prune(model, x, ratio=0.5)
    assert model.a.out_features == model.b.out_features == 32
    assert model(torch.randn(3, 16)).shape == (3, 4)


def test_named_arguments_thrown_away_tensors_and_comparisons():
    model = Parts().eval()
    prunekit.prune(model, torch.randn(2, 8), ratio=0.5)
    assert (model.k, model.a.out_features) == (8, 16)
    assert model(torch.randn(3, 8)).shape == (3, 4)


def test_a_traced_int_compares_as_an_int_does():
    size = TracedInt(4, ("constant", 4))
    assert size == 4.0
    assert (size != 4.0) is False
    assert size != 4.5
    assert bool(size == torch.tensor(4))
    assert size != "4"
    assert size is not None
    assert (size == None) is False  # noqa: E711


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("layer", "x"),
    [(nn.Linear(16, 32, bias=False), torch.randn(2, 16)), (nn.Conv1d(3, 32, 3, bias=False), torch.randn(2, 3, 9))],
)
def test_the_grid_of_a_fake_quantised_weight_goes_with_its_channels(layer, x):
    model = Fake(layer)
    model(x)
    prunekit.prune(model.eval(), x, ratio=0.5)
    assert model.layer.weight.shape[0] == 16
    assert model.quantise.scale.shape == model.quantise.zero_point.shape == (16,)
    model.train()(x).sum().backward()


def test_a_call_that_a_rule_does_not_know_freezes_what_it_touches(caplog):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 2)

        def forward(self, x):
            return self.c(self.b(torch.cumsum(self.a(x), 1)).relu())

    def broken(labelling, op):
        raise IndexError("tuple index out of range")

    from prunekit.coupling.coupler import Coupler
    from prunekit.operators import TABLE
    from prunekit.operators.table import Table

    model, x = Two().eval(), torch.randn(2, 8)
    trace = prunekit.trace(model, x).trace
    entries = {id(e): e for e in TABLE.values() if "aten.cumsum" not in e.names}.values()
    coupler = Coupler(trace=trace, table=Table([*entries, Operator(("aten.cumsum",), broken)]))
    with caplog.at_level(logging.WARNING, "prunekit"):
        coupler.run()
    assert "aten.cumsum" in caplog.text
    assert "aten.cumsum" in coupler.unknown


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.a, self.b, self.last, self.reentrant = nn.Linear(16, 64), nn.Linear(64, 16), nn.Linear(16, 3), reentrant

    def forward(self, x):
        block = lambda t: self.b(torch.relu(self.a(t)))  # noqa: E731
        return self.last(x + torch.utils.checkpoint.checkpoint(block, x, use_reentrant=self.reentrant))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_blocks_are_followed(reentrant):
    model, x = Checkpointed(reentrant).train(), torch.randn(4, 16)
    prunekit.prune(model, x, ratio=0.5)
    assert model.a.out_features == 32
    assert model.training
    model(x.requires_grad_()).sum().backward()
    assert model.a.weight.grad is not None


class Scaled(nn.Module):
    """Divides by the root of a width, written as a tensor; where ``spread``, in a place that no weight can undo."""

    def __init__(self, spread):
        super().__init__()
        self.a, self.b, self.c, self.spread = nn.Linear(8, 32), nn.Linear(8, 32), nn.Linear(4, 2), spread

    def forward(self, x):
        q, k = self.a(x), self.b(x)
        w = q @ k.transpose(-2, -1)
        w = w.square() if self.spread else w
        return self.c(w / torch.sqrt(torch.tensor(q.shape[-1])))


def test_a_constant_that_is_a_tensor_follows_the_width_and_is_undone_or_told():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 8)
    result = prunekit.prune(Scaled(False).eval(), x, ratio=0.5)
    assert result.plan.folds[0].factor == pytest.approx(0.5**0.5)
    assert result.report.notes == ()
    (note,) = prunekit.prune(Scaled(True).eval(), x, ratio=0.5).report.notes
    assert "a constant changes from 5.65685 to 4" in note
