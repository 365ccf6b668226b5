"""A schedule of one's own is a function of the step."""

import pytest
import torch
from torch import nn

import prunekit
from prunekit.errors import InputError
from prunekit.options.schedules import portions


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 40), nn.ReLU(), nn.Linear(40, 2)), torch.randn(1, 4)


def test_a_function_that_is_linear_does_what_linear_does():
    plans = []
    for schedule in ("linear", lambda k, n: k / n):
        model, x = network()
        plans.append(prunekit.prune(model, x, ratio=0.5, steps=4, align=1, schedule=schedule).plan.to_json())
    assert plans[0] == plans[1]


def test_each_step_takes_what_the_function_says():
    widths = []
    model, x = network()
    on_step = lambda model, k, n: widths.append(model[0].out_features)  # noqa: E731
    prunekit.prune(model, x, ratio=0.5, steps=3, align=1, schedule=lambda k, n: 0.1 * k, on_step=on_step)
    assert widths == [38, 36, 20]


@pytest.mark.parametrize("schedule", [lambda k, n: 0.5, lambda k, n: 1 - k / n, lambda k, n: 2.0, lambda k, n: 0.0])
def test_one_that_does_not_rise_is_refused(schedule):
    with pytest.raises(InputError, match="schedule"):
        portions(4, schedule)
