"""What grows with the model: touches are counted, since seconds cannot be held."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

import prunekit
from prunekit.coupling.lengths import Lengths
from prunekit.planning import arithmetic
from prunekit.quantities.counted_cost import CountedCost


class Block(nn.Module):
    """A residual block of two widths, one of which the model's own code divides by four."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(width, 32), nn.Linear(width, 24), nn.Linear(56, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        y = y.view(x.shape[0], 4, y.shape[-1] // 4).tanh().flatten(1)
        return x + self.last(torch.cat([y, self.second(x)], -1))


def touches(monkeypatch, depth, target):
    """How often a plan within a target computes a length, a term of the cost and a system of equations."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 40), *(Block(40) for _ in range(depth)), nn.Linear(40, 3)).eval()
    found = {"lengths": 0, "terms": 0, "systems": 0}

    def counted(where, name, kind):
        original = getattr(where, name)

        def call(*args, **kwargs):
            found[kind] += 1
            return original(*args, **kwargs)

        patch.setattr(where, name, call)

    with monkeypatch.context() as patch:
        counted(Lengths, "_length", "lengths")
        counted(CountedCost, "_renew", "terms")
        counted(arithmetic, "solved", "systems")
        plan = prunekit.plan(model, torch.ones(2, 6), target=target, scorer=prunekit.Random(), verify="shapes")
    assert len(plan.widths) >= depth
    return found


@pytest.mark.parametrize("target", ["params<=60%", "macs<=70%, memory<=75%"])
def test_work_grows_as_the_model_does(monkeypatch, target):
    few, many = (touches(monkeypatch, depth, target) for depth in (4, 16))
    for kind, count in few.items():
        assert count > 0
        assert many[kind] < 1.3 * 4 * count, (kind, few, many)


def test_a_call_waits_for_no_library_that_only_data_plug_ins_or_a_compiler_need():
    code = (
        "import sys, torch, prunekit\n"
        "x = torch.ones(1, 4)\n"
        "model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))\n"
        "prunekit.prune(model, x, ratio=0.5, scorer='wanda', data=[x])\n"
        "heavy = 'scipy.ndimage', 'pycocotools', 'segment_anything', 'torchvision', 'torch._dynamo'\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
