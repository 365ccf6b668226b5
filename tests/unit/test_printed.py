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


def test_the_table_has_a_row_a_layer_and_the_sum():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 1))
    before = sum(p.numel() for p in model.parameters())
    result = prunekit.prune(model, torch.randn(1, 3, 8, 8), ratio=0.5, steps=2, align=1)
    rows = {layer.module: layer for layer in result.layers}
    assert rows["0"].params == (16 * 27 + 16, 8 * 27 + 8)
    assert rows["0"].macs == (36 * 16 * 27, 36 * 8 * 27)
    assert rows["1"].params == (32, 16)
    assert rows["3"].macs == (36 * 64, 36 * 32)
    assert sum(layer.params[0] for layer in result.layers) == before
    assert sum(layer.params[1] for layer in result.layers) == sum(p.numel() for p in model.parameters())
    lines = result.table().splitlines()
    assert len(lines) == 5
    assert lines[1].split() == ["0", "448", "->", "224", "15,552", "->", "7,776"]
    assert lines[-1].startswith("all")
