"""A wheel of a plug-in that brings a rule for an operator of its own, written by hand as a build would."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

OPERATOR = """
import torch

@torch.library.custom_op("gatelib::gated", mutates_args=())
def gated(data: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    return data * gate.sigmoid()[None, :, None, None]

@gated.register_fake
def _(data: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(data)
"""
RULE = '''
from prunekit.operators import Labelling, Op, Operator
from prunekit.plugins import Plugin

def couple(labels: Labelling, op: Op) -> None:
    """gated(data (N, C, H, W), gate (C,)) -> (N, C, H, W): a gate a channel."""
    data, gate = op.args
    axes = labels.of(data)
    labels.unite(axes[1], labels.of(gate)[0])
    labels.set(op.outputs[0], axes)

plugin = Plugin("gatelib", operators=(Operator(("gatelib.gated",), couple),))
'''
METADATA = "Metadata-Version: 2.1\nName: gatelib\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
ENTRY = "[prunekit.plugins]\ngatelib = gatelib_rule:plugin\n"


def put_down(folder: Path) -> Path:
    """A folder for PYTHONPATH with the modules alone: nothing says that one of them is a plug-in."""
    (folder / "gatelib.py").write_text(OPERATOR)
    (folder / "gatelib_rule.py").write_text(RULE)
    return folder


def installed(folder: Path) -> Path:
    """A folder for PYTHONPATH into which pip has installed the wheel."""
    wheel = folder / "gatelib-1.0-py3-none-any.whl"
    files = {"gatelib.py": OPERATOR, "gatelib_rule.py": RULE}
    about = {"METADATA": METADATA, "WHEEL": WHEEL, "entry_points.txt": ENTRY}
    files |= {f"gatelib-1.0.dist-info/{name}": text for name, text in about.items()}
    record = "".join(f"{name},,\n" for name in [*files, "gatelib-1.0.dist-info/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**files, "gatelib-1.0.dist-info/RECORD": record}.items():
            archive.writestr(name, text)
    target = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True, capture_output=True)
    return target
