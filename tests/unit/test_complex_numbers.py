"""Complex weights, inputs and outputs: everywhere they are what their real and imaginary parts are."""

import pytest
import torch
from torch import nn

import prunekit
from prunekit.allocation.divergences import compared_outputs, divergence_for
from prunekit.errors import InputError, PrunekitError
from prunekit.inputs import normalise
from prunekit.inputs.generation import generated
from prunekit.scorers import OWN

UNLIKE_WIDTHS = ("block_influence", "damage", "damage_greedy", "reap", "routed_frequency", "batch_norm_scale")


class Spectral(nn.Module):
    """Channels mixed in the frequency domain; ``parts`` has the same weight as pairs of real numbers."""

    def __init__(self, *, parts=False):
        super().__init__()
        torch.manual_seed(0)
        self.lift = nn.Conv2d(3, 8, 1)
        mixing = torch.randn(8, 12, 4, 3, dtype=torch.cfloat) * 0.3
        self.mixing = nn.Parameter(torch.view_as_real(mixing).clone() if parts else mixing)
        self.head = nn.Conv2d(12, 4, 1)
        self.parts = parts

    def forward(self, x):
        mixing = torch.view_as_complex(self.mixing) if self.parts else self.mixing
        mixed = torch.einsum("bixy,ioxy->boxy", torch.fft.rfft2(self.lift(x))[..., :4, :3], mixing)
        return self.head(torch.relu(torch.fft.irfft2(mixed, s=x.shape[-2:])))


def data():
    return [torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]


def loss(output, target):
    return (output - target).square().mean()


def criterion(name):
    if name in ("taylor", "fisher", "obd"):
        return {"taylor": prunekit.scorers.Taylor, "fisher": prunekit.scorers.Fisher, "obd": prunekit.scorers.OBD}[
            name
        ](loss)
    return name


@pytest.mark.parametrize("name", [name for name in sorted(OWN) if name not in UNLIKE_WIDTHS])
def test_every_criterion_reads_complex_weights(name):
    model = Spectral().eval()
    samples = [(x, torch.ones(2, 4, 8, 8)) for x in data()] if name in ("taylor", "fisher", "obd") else data()
    result = prunekit.prune(model, data()[0], data=samples, scorer=criterion(name), ratio=0.5)
    assert model.mixing.shape == (4, 6, 4, 3)
    assert model.mixing.is_complex()
    result.undo()
    assert model.mixing.shape == (8, 12, 4, 3)


@pytest.mark.parametrize("accumulation", ["abs", "squared", "signed"])
def test_products_are_those_of_the_parts(accumulation):
    scorer = prunekit.DisturbedTaylor(accumulation=accumulation, within="sum", reads="all")
    plans = []
    for parts in (False, True):
        model = Spectral(parts=parts).eval()
        plans.append(prunekit.plan(model, data()[0], data=data(), scorer=scorer, ratio=0.5))
    assert plans[0].cuts == plans[1].cuts


def test_a_complex_weight_that_is_not_finite_is_named():
    model = Spectral().eval()
    with torch.no_grad():
        model.mixing[0, 0, 0, 0] = complex(float("nan"), 0)
    for scorer in ("magnitude", "disturbed_taylor"):
        with pytest.raises(PrunekitError, match="mixing"):
            prunekit.prune(model, data()[0], data=data(), scorer=scorer, ratio=0.5)


class Waves(nn.Module):
    """Complex in, complex out."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(6, 16, dtype=torch.cfloat), nn.Linear(16, 6, dtype=torch.cfloat)

    def forward(self, x):
        hidden = self.one(x)
        return self.two(torch.complex(hidden.real.relu(), hidden.imag.relu()))


WAVES = torch.randn(4, 6, dtype=torch.cfloat, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "asked",
    [
        {"scorer": "magnitude"},
        {"scorer": "disturbed_taylor"},
        {"scorer": "disturbed_taylor", "data": [WAVES[:2], WAVES[2:]]},
        {"allocation": prunekit.Measured(samples=2, widths=(0.5,), sets=2), "data": [WAVES[:2], WAVES[2:]]},
    ],
    ids=["weights", "generated", "data", "measured"],
)
def test_complex_inputs_and_outputs_are_data_too(asked):
    model = Waves().eval()
    how = {"target": "params<=60%"} if "allocation" in asked else {"ratio": 0.5}
    prunekit.prune(model, WAVES, **how, **asked)
    assert model.one.out_features < 16
    assert model(WAVES).shape == (4, 6)


@pytest.mark.parametrize("shape", [(5,), (5, 3)])
def test_parts_of_outputs_are_no_classes(shape):
    ones, others = torch.ones(shape, dtype=torch.cfloat), torch.ones(shape, dtype=torch.cfloat) * 1j
    outputs = compared_outputs(ones, "auto")
    how = divergence_for("auto", outputs)
    assert how.of([t for _, t in compared_outputs(others, "auto")], [t for _, t in outputs])[0] == 2 * ones.numel()


def test_generated_inputs_are_complex_and_differ():
    first, second = generated(normalise(WAVES), 2)
    assert first.args[0].dtype == torch.cfloat
    assert not torch.equal(first.args[0], second.args[0])
    assert first.args[0].real.std() > 0.1
    assert first.args[0].imag.std() > 0.1


def test_real_data_for_complex_inputs_is_refused():
    with pytest.raises(InputError, match=r"torch\.float32 tensor where the example inputs have torch\.complex64"):
        prunekit.prune(Waves().eval(), WAVES, data=[WAVES.real], scorer="wanda")


@pytest.mark.parametrize("scorer", ["wanda", "activation", "apoz"])
def test_criteria_of_features_read_complex_ones(scorer):
    model, samples = Waves().eval(), [WAVES[:2], WAVES[2:]]
    with torch.no_grad():
        model.one.weight[::2] = 0  # every other unit puts out nothing
        model.one.bias[::2] = 0
    result = prunekit.prune(model, WAVES, data=samples, scorer=scorer, ratio=0.5)
    assert result.plan.cuts[0].kept == tuple(range(1, 16, 2))


class Latents(nn.Module):
    """Learned rows that nothing multiplies: they are data themselves."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rows, self.read, self.head = nn.Parameter(torch.randn(6, 8)), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        rows = self.rows.expand(len(x), -1, -1)
        weights = (rows @ x[..., None]).softmax(1)
        return self.head(self.read((weights * rows).sum(1)).relu())


@pytest.mark.parametrize("scorer", ["wanda", "activation"])
def test_what_meets_no_data_is_refused_with_what_to_leave_out(scorer):
    x = torch.randn(4, 8)
    with pytest.raises(PrunekitError, match=r"exclude=\['rows:0") as told:
        prunekit.prune(Latents().eval(), x, data=[x], scorer=scorer, ratio=0.5)
    name = str(told.value).split("exclude=['")[1].split("']")[0]
    model = Latents().eval()
    prunekit.prune(model, x, data=[x], scorer=scorer, ratio=0.5, exclude=[name])
    assert model.rows.shape == (6, 8)
    assert model.read.out_features == 4
