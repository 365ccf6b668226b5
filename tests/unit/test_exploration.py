"""A front of one measurement, and a search by a score of one's own: within budgets, resumed, the model untouched."""

from __future__ import annotations

import math

import pytest
import torch
from support.compare import differences, snapshot
from torch import nn

import prunekit
from prunekit.errors import BudgetError, InputError, ScorerError

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3)).eval()


def likes_the_second(model):
    return model[2].out_features - model[0].out_features


def test_a_front_is_one_measurement_and_the_model_stays(tmp_path):
    model = network()
    before = snapshot(model)
    targets = ["params<=80%", "params<=50%", "params<=1%"]
    front = prunekit.pareto(model, targets, X, data=X.split(1), scorer="magnitude")
    first, second, none = front.points
    assert first.damage <= second.damage
    assert first.cost.params <= 0.8 * front.original.params
    assert second.cost.params <= 0.5 * front.original.params
    assert none.plan is None
    assert "out of reach" in none.remarks[0]
    plans = [int(point.remarks[0].split(" plans")[0].rpartition(" ")[2]) for point in (first, second)]
    assert plans[1] < plans[0]  # whole sets and their neighbours only
    front.plot(tmp_path / "front.png", "params")
    assert (tmp_path / "front.png").stat().st_size > 1000
    with pytest.raises(InputError, match="cannot be drawn"):
        front.plot(tmp_path / "front.png", "beauty")
    assert not differences(before, snapshot(model))
    with prunekit.applied(model, second.plan) as slim:
        assert sum(p.numel() for p in slim.parameters()) == second.cost.params


@pytest.mark.parametrize("targets", [[], "params<=80%"])
def test_targets_that_are_no_list_are_refused(targets):
    with pytest.raises(InputError, match="not a list"):
        prunekit.pareto(network(), targets, X)


@pytest.mark.parametrize("sampler", ["nsga2", "cmaes", "random"])
def test_a_search_stays_within_budgets_and_finds_what_is_liked(sampler):
    model = network()
    before = snapshot(model)
    seen = []

    def score(slim):
        seen.append(sum(p.numel() for p in slim.parameters()))
        return likes_the_second(slim)

    found = prunekit.search(
        model, score, "params<=70%, macs<=75%", X, trials=24, sampler=sampler, scorer="magnitude", verify="shapes"
    )
    whole = sum(p.numel() for p in model.parameters())
    assert all(count <= 0.7 * whole for count in seen)
    assert len(found.scores) == 24
    assert found.best.score == max(found.scores) > found.uniform.score == found.scores[0]
    with prunekit.applied(model, found.best.plan) as slim:
        assert likes_the_second(slim) == found.best.score
        assert slim[2].out_features == found.best.widths["2.weight:0"]
    assert not differences(before, snapshot(model))


def test_a_search_goes_on_from_its_file(tmp_path):
    store, calls = tmp_path / "runs" / "search.log", []

    def score(slim):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return likes_the_second(slim)

    def asked(trials):
        more = {"sampler": "random", "scorer": "magnitude", "verify": "shapes", "store": store}
        return prunekit.search(network(), score, "params<=70%", X, trials=trials, **more)

    with pytest.raises(KeyboardInterrupt):
        asked(10)
    found = asked(10)
    assert len(found.scores) == 10
    told = len(calls)
    again = asked(10)
    assert again.scores == found.scores
    assert len(calls) <= told + 2  # the best and the uniform one, to be told of


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"sampler": "darts"}, InputError, "not a sampler"),
        ({"trials": 0}, InputError, "trials"),
        ({"score": 3}, InputError, "score"),
        ({"score": lambda m: math.nan}, ScorerError, "score of a subnet"),
        ({"budgets": "params<=1%"}, BudgetError, "out of reach"),
        ({"ratio": 0.5}, InputError, "no use for ratio"),
    ],
)
def test_what_cannot_be_searched_is_refused_and_the_model_stays(wrong, error, says):
    model = network()
    before = snapshot(model)
    asked = {"score": likes_the_second, "budgets": "params<=70%", "trials": 2, **wrong}
    with pytest.raises(error, match=says) as caught:
        prunekit.search(model, asked.pop("score"), asked.pop("budgets"), X, scorer="magnitude", **asked)
    assert caught.value.hint
    assert not differences(before, snapshot(model))
