"""Every public argument against what it cannot be: done, or refused by a typed error; never a traceback or a hang."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import prunekit
from prunekit.errors import InputError, PrunekitError
from prunekit.options.together import options_said

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
ODD = {
    "None": None,
    "a negative number": -1,
    "a float": 2.5,
    "NaN": math.nan,
    "a huge number": 10**30,
    "a word": "abc",
    "an empty list": [],
    "an empty mapping": {},
    "an object": object(),
    "a mapping of numbers": {1: 2},
    "a mapping with NaN": {"0": math.nan},
    "a function": lambda *given: 1,
    "a tensor": torch.ones(3),
    "bytes": b"x",
}


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


def unharmed(call):
    """Runs it; whether it was refused."""
    try:
        call()
    except PrunekitError:
        return True
    return False


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", [*options_said(), "example_inputs", "data", "structure"])
def test_an_option_is_used_or_refused(name):
    for value in ODD.values():
        model = net()
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        given = {"example_inputs": X, "scorer": "magnitude", name: value}
        refused = unharmed(lambda model=model, given=given: prunekit.prune(model, **given))
        same = {k: t.shape == before[k].shape and torch.equal(t, before[k]) for k, t in model.state_dict().items()}
        assert all(same.values()) or not refused


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_what_is_no_model_plan_result_folder_or_optimizer(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = prunekit.plan(net(), X, ratio=0.5, scorer="magnitude")
    result = prunekit.prune(net(), X, ratio=0.5, scorer="magnitude")
    optimizer = torch.optim.SGD(net().parameters(), lr=0.1)
    unharmed(lambda: prunekit.trace(value, X))
    unharmed(lambda: prunekit.prune(value, X))
    unharmed(lambda: prunekit.apply(value, plan))
    unharmed(lambda: prunekit.apply(net(), value))
    unharmed(lambda: prunekit.apply(net(), plan, compensate=value))
    unharmed(lambda: prunekit.save(value, tmp_path / "a"))
    unharmed(lambda: prunekit.save(result, value))
    unharmed(lambda: prunekit.save(result, tmp_path / "b", spec=value))
    unharmed(lambda: prunekit.save(result, tmp_path / "c", extras=value))
    unharmed(lambda: prunekit.load(value))
    unharmed(lambda: prunekit.migrate_optimizer(value, result))
    unharmed(lambda: prunekit.migrate_optimizer(optimizer, value))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: prunekit.prune(net(), X, structure={}), "structure="),
        (lambda: prunekit.apply(net(), "plan.json"), "plan="),
        (lambda: prunekit.save(None, "x"), "result=None"),
        (lambda: prunekit.save(prunekit.prune(net(), X, scorer="magnitude"), ""), "folder=''"),
        (lambda: prunekit.load(3), "folder=3"),
        (lambda: prunekit.migrate_optimizer(net(), None), "optimizer="),
        (lambda: prunekit.compose({}, None), "first={}"),
        (lambda: prunekit.prune(net(), X, steps=10**30), "steps"),
        (lambda: prunekit.prune(net(), X, ranking="global", normaliser=lambda s: s[:1]), r"shape \(1,\)"),
        (lambda: prunekit.prune(net(), X, ranking="global", normaliser=lambda s: 1 / 0), "ZeroDivisionError"),
    ],
)
def test_the_message_names_the_argument(call, words):
    with pytest.raises(InputError, match=words):
        call()
