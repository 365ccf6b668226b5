"""A plug-in that is installed as a wheel brings a rule of fifteen lines; a model with it then prunes exactly."""

import os
import subprocess
import sys

import pytest
from support.gated_wheel import RULE, installed, put_down

MODEL = """
import torch
from torch import nn
import gatelib
import prunekit

class Gated(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, width, 3), nn.Conv2d(width, 4, 3)
        self.gate = nn.Parameter(torch.randn(width))

    def forward(self, x):
        return self.last(torch.ops.gatelib.gated(self.first(x), self.gate))

torch.manual_seed(0)
model, x = Gated().eval(), torch.randn(2, 3, 9, 9)
"""
EXACT = """
group, = structure.groups
plan = prunekit.plan(model, x, structure=structure)
kept = torch.tensor(plan.widths[0].kept)
assert len(kept) == 8, kept
with torch.no_grad():
    narrow = Gated(8).eval()  # built by hand
    narrow.first.weight.copy_(model.first.weight[kept]), narrow.first.bias.copy_(model.first.bias[kept])
    narrow.gate.copy_(model.gate[kept]), narrow.last.bias.copy_(model.last.bias)
    narrow.last.weight.copy_(model.last.weight[:, kept])
    result = prunekit.prune(model, x, structure=structure)
    assert result.report.verify["symmetry"] == "passed"
    torch.testing.assert_close(model(x), narrow(x))
    result.undo()
"""
WITH = MODEL + "structure = prunekit.trace(model, x)\nassert not structure.unknown, structure.unknown\n" + EXACT
# without the plug-in: what the operator touches is frozen, and the error's hint is then done word for word
WITHOUT = (
    MODEL
    + """
import re
from gatelib_rule import couple as rule
structure = prunekit.trace(model, x)
assert structure.unknown.keys() == {"gatelib.gated"} and not structure.groups
reasons = {f.name: f.reason for f in structure.frozen}
assert reasons["first.weight:0"] == "operator gatelib.gated has no coupling rule", reasons
before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
try:
    prunekit.prune(model, x)
except prunekit.PrunekitError as error:
    hint = error.hint
else:
    raise AssertionError("nothing could be pruned, and nothing was said")
assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
assert "docs/operators.md" in hint and "Plugin(operators=...)" in hint, hint
import prunekit.operators
said = re.search(r"prunekit\\.trace\\(model, (operators=.*?\\])\\)", hint).group(1)
structure = eval(f"prunekit.trace(model, x, {said})")
"""
    + EXACT
    # a second step is traced with the same rule
    + "assert len(prunekit.prune(model, x, structure=structure, steps=2, ratio=0.75).plan.widths[0].kept) == 4\n"
)


@pytest.mark.parametrize(
    ("found", "script"),
    [
        pytest.param(installed, WITH, id="installed"),
        pytest.param(put_down, WITHOUT, id="not installed", marks=pytest.mark.sweep),
    ],
)
def test_a_model_with_an_operator_of_its_own(tmp_path, found, script):
    paths = [str(found(tmp_path)), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_rule_is_about_fifteen_lines():
    assert len(RULE.strip().splitlines()) <= 15
