"""From weights to units, and scores that are comparable between groups: reducers, normalisers, norms."""

from __future__ import annotations

import math

import pytest
import torch
from support.scoring import CHANNELS, Conv, close, images, make

import prunekit
from prunekit.coupling.groups import Group, Member
from prunekit.errors import RegistryError
from prunekit.scorers import FPGM, Activation, BatchNormScale, DisturbedTaylor, Magnitude, Saliency, Statistics, Wanda
from prunekit.scorers.normalisers import NORMALISERS, normaliser
from prunekit.scorers.norms import powers
from prunekit.scorers.reducers import REDUCERS, rows


def test_reducers_and_coordinates_outside_the_group():
    values = {"a": torch.tensor([[1.0, -3.0], [5.0, 5.0], [9.0, 9.0]]), "b": torch.tensor([4.0, 8.0])}
    group = Group(
        "a:0", "channels", 2, (Member("a", 0, torch.tensor([0, -1, 1])), Member("b", 0, torch.tensor([0, 0])))
    )
    table = rows(group, values.__getitem__)
    assert table[0].tolist() == [2.0, 9.0]
    assert table[1, 0] == 6.0
    assert table[1, 1].isnan()
    assert rows(group, values.__getitem__, "sum")[:, 0].tolist() == [4.0, 12.0]
    assert REDUCERS["mean"](table).tolist() == [4.0, 9.0]
    assert REDUCERS["sum"](table).tolist() == [8.0, 9.0]
    assert REDUCERS["max"](table).tolist() == [6.0, 9.0]


def test_normalisers():
    x = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    assert NORMALISERS["none"](x).tolist() == [1, 2, 5]
    assert NORMALISERS["sum"](x).tolist() == [1 / 8, 2 / 8, 5 / 8]
    assert torch.allclose(NORMALISERS["mean"](x), x * 3 / 8)
    assert NORMALISERS["max"](x).tolist() == [0.2, 0.4, 1]
    assert NORMALISERS["standardisation"](x).tolist() == [0, 0.25, 1]
    z = NORMALISERS["gaussian"](x)
    assert abs(float(z.mean())) < 1e-12
    assert abs(float(z.std()) - 1) < 1e-12
    with pytest.raises(RegistryError, match="gaussian"):
        normaliser("gausian")


@pytest.mark.parametrize("name", NORMALISERS)
@pytest.mark.parametrize(
    "scores",
    [[0.0, 0.0], [3.0], [2.0, 2.0], [-1.0, -2.0, 3.0], [-3.0, -1.0]],
    ids=["zero", "one", "flat", "mix", "neg"],
)
def test_normalisers_stay_finite_and_keep_the_order(name, scores):
    x = torch.tensor(scores, dtype=torch.float64)
    y = NORMALISERS[name](x)
    assert torch.isfinite(y).all()
    assert torch.equal(x.argsort(stable=True), y.argsort(stable=True))


@pytest.mark.parametrize("shape", [(7,), (5, 6), (4, 5, 3), (6, 4, 3, 3), (3, 2, 2, 2, 2), (700, 900)])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_powers_along_every_axis(shape, p):
    torch.manual_seed(0)
    for weight in (torch.randn(shape), torch.randn(shape).half(), torch.randn(shape).double()):
        for axis in range(len(shape)):
            others = [k for k in range(len(shape)) if k != axis]
            expected = weight.double().abs().pow(p)
            expected = expected.sum(others) if others else expected
            assert torch.allclose(powers(weight, axis, p), expected, rtol=1e-5)
    transposed = torch.randn(6, 4, 3).permute(2, 0, 1)
    assert torch.allclose(powers(transposed, 1, 2.0), transposed.double().square().sum((0, 2)), rtol=1e-5)


def plain_reducer(name, values):
    """Of the parameters that reach a unit; no torch."""
    if name == "mean":
        return sum(values) / len(values)
    if name == "sum":
        return sum(values)
    if name == "max":
        return max(values)
    if name == "prod":
        return math.prod(values)
    assert name == "l2"
    return math.sqrt(sum(v * v for v in values))


@pytest.mark.parametrize("name", REDUCERS)
def test_every_reducer_against_loops(name):
    table = torch.rand(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    table[0, 2] = table[2, 2] = table[3, 5] = torch.nan  # parameters that do not reach these units
    wanted = [
        plain_reducer(name, [float(table[row, unit]) for row in range(4) if not math.isnan(table[row, unit])])
        for unit in range(7)
    ]
    torch.testing.assert_close(REDUCERS[name](table), torch.tensor(wanted, dtype=torch.float64))


def plain_normaliser(name, x):
    """No torch."""
    mean = sum(x) / len(x)
    if name == "none":
        return x
    if name == "sum":
        return [v / sum(x) for v in x]
    if name == "mean":
        return [v / mean for v in x]
    if name == "max":
        return [v / max(x) for v in x]
    if name == "gaussian":
        deviation = math.sqrt(sum((v - mean) ** 2 for v in x) / (len(x) - 1))
        return [(v - mean) / deviation for v in x]
    if name == "standardisation":
        return [(v - min(x)) / (max(x) - min(x)) for v in x]
    assert name == "lamp"
    return [v * v / sum(w * w for w in x if w >= v) for v in x]


@pytest.mark.parametrize("name", NORMALISERS)
def test_every_normaliser_against_loops(name):
    x = [3.0, 0.5, 2.0, 2.0, 7.0, 0.0]
    found = NORMALISERS[name](torch.tensor(x, dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor(plain_normaliser(name, x), dtype=torch.float64))


def smallest(rows):
    return rows.nan_to_num(torch.inf).amin(0)


def test_a_reducer_of_your_own_is_taken_where_a_name_is():
    model = make(Conv)
    statistics = Statistics(model, images(2))
    state = dict(model.named_parameters())
    wanted = [
        min(float(state[m.tensor].detach().select(m.axis, unit).square().mean().sqrt()) for m in CHANNELS.parameters)
        for unit in range(6)
    ]
    assert close(Magnitude(across=smallest).score(CHANNELS, statistics), wanted)
    for kind in (DisturbedTaylor, Saliency, Wanda, Activation, FPGM, BatchNormScale):
        low, high = (kind(across=across).score(CHANNELS, statistics) for across in (smallest, "max"))
        assert low.shape == (6,)
        assert bool((low <= high).all())


def test_a_normaliser_of_your_own_is_taken_where_a_name_is():
    model, x = make(Conv).eval(), torch.zeros(1, 3, 8, 8)
    seen = []

    def mine(scores):
        seen.append(scores)
        return scores / scores.max()

    by_function = prunekit.plan(model, x, ranking="global", normaliser=mine, ratio=0.4)
    assert seen
    assert by_function.widths == prunekit.plan(model, x, ranking="global", normaliser="max", ratio=0.4).widths
