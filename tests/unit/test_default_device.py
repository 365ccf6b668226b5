"""Another default device, as after ``torch.set_default_device``: whatever prunekit makes says where."""

import ast
from pathlib import Path

import pytest
import torch
from torch import nn

import prunekit

PLUGINS = Path(__file__).parents[2] / "plugins"
ROOTS = (Path(prunekit.__file__).parent, PLUGINS / "sam" / "prunekit_sam", PLUGINS / "hf" / "prunekit_hf")
FACTORIES = {"arange", "as_tensor", "empty", "eye", "full", "linspace", "ones", "rand", "randint", "randn", "randperm"}
FACTORIES |= {"tensor", "zeros"}
X = torch.randn(4, 3, 8, 8)
DATA = [torch.randn(1, 3, 8, 8) for _ in range(4)]


def unnamed(source):
    for node in ast.walk(ast.parse(source)):
        called = node.func if isinstance(node, ast.Call) else None
        of_torch = (
            isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "torch"
        )
        if of_torch and called.attr in FACTORIES and not {k.arg for k in node.keywords} & {"device", None}:
            yield node.lineno


def test_every_tensor_that_is_made_names_its_device():
    files = [file for root in ROOTS for file in root.rglob("*.py")]
    assert [f"{file.name}:{line}" for file in files for line in unnamed(file.read_text())] == []


def test_a_tensor_that_names_none_is_found():
    assert list(unnamed("torch.zeros(3)\ntorch.ones(3, device=d)\ntorch.full(x, **made)\n")) == [1]


def pruned(options, device="cpu"):
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.ReLU(), nn.Conv2d(24, 4, 1))
    model = nn.Sequential(*layers).eval()
    with torch.device(device):
        prunekit.prune(model, X, **options)
    return model.state_dict()


@pytest.mark.parametrize(
    "options",
    [
        {"ratio": 0.5},
        {"ratio": 0.5, "scorer": "random", "ranking": "global"},
        {"target": "params<=60%", "scorer": "fpgm"},
        {"ratio": 0.5, "scorer": "wanda", "data": DATA, "compensate": "ridge"},
        {"ratio": 0.5, "scorer": "activation", "data": DATA, "compensate": "ridge-in-order"},
        {"target": "macs<=60%", "allocation": "measured", "data": DATA},
    ],
    ids=["default", "random", "target", "ridge", "in-order", "measured"],
)
def test_the_same_is_cut_whatever_the_default_device_is(options):
    wanted, found = pruned(options), pruned(options, "meta")
    assert all(torch.equal(value, found[name]) for name, value in wanted.items())
