"""Numbers of numpy are taken wherever numbers are, and nothing of numpy comes out."""

from __future__ import annotations

import json
from dataclasses import fields
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

import prunekit
from prunekit.compensation.settings import Compensation
from prunekit.errors import InputError, as_plain
from prunekit.files.byte_counts import as_bytes
from prunekit.options import Options
from prunekit.scorers import OWN

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


PAIRS = {
    "seed": [{"seed": np.int64(3)}, {"seed": 3}],
    "ratio": [{"ratio": np.float32(0.3)}, {"ratio": 0.3}],
    "ratio of 64 bits": [{"ratio": np.float64(0.3)}, {"ratio": 0.3}],
    "ratio of a role": [{"ratio": {"mlp.hidden": np.float16(0.3)}}, {"ratio": {"mlp.hidden": 0.3}}],
    "bounds": [{"min_ratio": np.float32(0.1), "max_ratio": np.float32(0.6)}, {"min_ratio": 0.1, "max_ratio": 0.6}],
    "align": [{"align": np.int32(4)}, {"align": 4}],
    "align of a role": [{"align": {"mlp.hidden": np.uint8(4)}}, {"align": {"mlp.hidden": 4}}],
    "granularity": [{"granularity": np.int16(2)}, {"granularity": 2}],
    "target": [{"target": {"params": np.int64(300)}}, {"target": {"params": 300}}],
    "criterion": [
        {"scorer": prunekit.DisturbedTaylor(sigma=np.float32(0.1), seed=np.int64(2**40), images=np.int64(2))},
        {"scorer": prunekit.DisturbedTaylor(sigma=0.1, seed=2**40, images=2)},
    ],
    "chance": [{"scorer": prunekit.Random(seed=np.uint64(5))}, {"scorer": prunekit.Random(seed=5)}],
    "measured": [
        {
            "target": "params<=70%",
            "allocation": prunekit.Measured(widths=[np.float32(0.5), 0.25], samples=np.int64(2), rounds=np.int64(0)),
        },
        {"target": "params<=70%", "allocation": prunekit.Measured(widths=[0.5, 0.25], samples=2, rounds=0)},
    ],
}


@pytest.mark.parametrize(("odd", "plain"), PAIRS.values(), ids=PAIRS)
def test_the_plan_is_that_of_plain_numbers(odd, plain):
    asked = {} if "target" in odd or "ratio" in odd else {"ratio": 0.5}
    data = [X[:1], X[1:]]
    made = prunekit.plan(net(), X, data=data, **asked, **odd)
    assert made == prunekit.plan(net(), X, data=data, **asked, **plain)
    assert prunekit.Plan.from_json(made.to_json()) == made
    assert "np." not in repr(Options.of(**odd))


def test_steps_refits_and_the_report():
    how = Compensation(strength=np.float32(0.1), samples=np.int64(2), seed=np.int64(1))
    asked = {"ratio": np.float32(0.5), "steps": np.int64(2), "compensate": how, "data": [X[:1], X[1:]]}
    result = prunekit.prune(net(), X, **asked)
    assert result.report.ratio == 0.5
    assert type(result.report.ratio) is float
    json.dumps({each.name: getattr(result.report, each.name) for each in fields(result.report)})
    assert "np." not in result.report.scorer


@pytest.mark.parametrize("name", ["seed", "steps", "align", "granularity", "ratio", "min_ratio", "max_ratio"])
@pytest.mark.parametrize("value", [True, np.bool_(1), np.bool_(0), np.float32("nan"), np.int64(-1), np.array([1, 2])])
def test_what_is_no_number_is_refused(name, value):
    with pytest.raises(InputError):
        prunekit.prune(net(), X, scorer="magnitude", **{name: value})


def test_plain_numbers():
    kept = (True, 3, 0.5, "x", None, [1, 2], {"a": 1}, object())
    assert all(as_plain(value) is value for value in kept)
    made = as_plain({"a": (np.int8(1), [np.float32(0.1)]), "b": Fraction(1, 2)})
    assert made == {"a": (1, [0.1]), "b": 0.5}
    assert [type(made["a"][0]), type(made["a"][1][0]), type(made["b"])] == [int, float, float]
    assert as_bytes("memory", np.int64(5)) == 5


@pytest.mark.parametrize("name", OWN)
def test_every_criterion_takes_them(name):
    made = OWN[name]()
    numbers = {
        each.name: np.int64(2)
        for each in fields(made)
        if each.init and each.name in ("seed", "images", "samples", "probes")
    }
    choice = Options.of(scorer=OWN[name](**numbers)).choice
    assert all(type(getattr(choice.scorer, each)) is int for each in numbers)
