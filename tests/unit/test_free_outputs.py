"""Widths of outputs shrink where they are asked to, exactly, and keep their size otherwise."""

import pytest
import torch
from torch import nn

import prunekit
from prunekit.errors import InputError


class Pyramid(nn.Module):
    """Features of two stages, as a backbone returns them."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 32, 3, stride=2, padding=1)

    def forward(self, x):
        low = self.norm(self.first(x)).relu()
        return {"low": low, "high": [self.second(low)]}


def headless():
    return nn.Sequential(nn.Linear(6, 24), nn.GELU(), nn.Linear(24, 16), nn.LayerNorm(16))


CASES = {"pyramid": (Pyramid, torch.randn(1, 3, 8, 8)), "headless": (headless, torch.randn(2, 6))}


@pytest.mark.parametrize("name", CASES)
def test_outputs_shrink_on_request_and_only_then(name):
    make, x = CASES[name]
    torch.manual_seed(0)
    model = make().eval()
    assert all("output" in frozen.reason for frozen in prunekit.trace(model, x).frozen)
    result = prunekit.prune(model, x, ratio=0.5, free_outputs=True, verify="full")
    assert result.report.verify["symmetry"] == "passed"
    found = model(x)
    shapes = [found.shape[1]] if name == "headless" else [found["low"].shape[1], found["high"][0].shape[1]]
    assert shapes == ([8] if name == "headless" else [8, 16])
    assert str(shapes[-1]) in result.plan.explain()


def test_what_is_left_is_what_was_there():
    torch.manual_seed(0)
    model, x = Pyramid().eval(), torch.randn(1, 3, 8, 8)
    before = model(x)
    result = prunekit.prune(model, x, ratio=0.5, free_outputs=True, include=["second.weight:0"])
    (width,) = [w for w in result.plan.widths if w.after < w.before]
    torch.testing.assert_close(model(x)["high"][0], before["high"][0][:, list(width.kept)])
    result.undo()
    torch.testing.assert_close(model(x)["high"][0], before["high"][0])


def test_a_wrong_coupling_of_outputs_is_caught():
    model, x = Pyramid().eval(), torch.randn(1, 3, 8, 8)
    structure = prunekit.trace(model, x, free_outputs=True)
    group = next(g for g in structure.groups if g.size == 16)
    from prunekit.planning.symmetry_check import symmetry

    seen = {group.name: structure.in_outputs(group.name)}
    assert symmetry(model, [group], structure.inputs, seen=seen).passed
    assert symmetry(model, [group], structure.inputs).broken == (group.name,)


def test_a_structure_that_keeps_its_outputs_is_refused():
    model, x = Pyramid().eval(), torch.randn(1, 3, 8, 8)
    with pytest.raises(InputError, match="free_outputs"):
        prunekit.prune(model, x, structure=prunekit.trace(model, x), free_outputs=True)
