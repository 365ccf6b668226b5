"""What stands at the prompt: a few lines that a person wants."""

import pytest
import torch
from torch import nn

import prunekit
from prunekit.quantities.lines import latency_change


def test_results_plans_and_reports_are_short_and_say_what_changed():
    model = nn.Sequential(*[layer for _ in range(20) for layer in (nn.Linear(32, 32), nn.ReLU())], nn.Linear(32, 2))
    result = prunekit.prune(model, torch.randn(1, 32), ratio=0.5)
    for thing in (result, result.plan, result.report):
        text = repr(thing)
        assert len(text) < 2000
        assert len(text.splitlines()) < 20
        assert "tensor(" not in text
    assert "21.19k -> 5.73k (-73%)" in repr(result)
    assert "32 -> 16" in repr(result)
    assert "and 12 more" in repr(result.plan)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [(0.010, 0.0102, "10 ms -> 10.2 ms (equal)"), (0.010, 0.005, "10 ms -> 5 ms (-50%)"), (1, 2, "(+100%)")],
)
def test_a_latency_within_its_noise_is_called_equal(before, after, said):
    assert said in latency_change(before, after)
