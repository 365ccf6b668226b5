"""``prunekit prune --offload``: the same weights, and what is made lies in files."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

import prunekit
from prunekit.cli.app import run
from prunekit.offloading import offloaded, spilling
from prunekit.offloading.copies import copied_in_files

NETS = "from benchmarks.faults.tiny import tiny_model\n"
FEW = [
    "--set",
    "images=2",
    "--set",
    "val_images=1",
    "--set",
    "latency=false",
    "--scorer",
    "magnitude",
    "--ratio",
    "0.4",
]


@pytest.fixture
def nets(tmp_path, monkeypatch):
    (tmp_path / "offload_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "offload_nets", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(spilling, "_SMALL", 1)
    return tmp_path


def test_the_result_is_that_of_memory_and_run_yaml_does_it_again(nets, monkeypatch, capsys):
    spilled, real = [], spilling.tempfile.mkstemp
    monkeypatch.setattr(spilling.tempfile, "mkstemp", lambda **where: (spilled.append(where["dir"]), real(**where))[1])
    prune = ["prune", "python:offload_nets:tiny_model", *FEW]
    assert run([*prune, "--out", "plain"]) == 0
    assert spilled == []
    assert run([*prune, "--out", "slim", "--offload", "scratch", "--offload-memory", "500MB"]) == 0, capsys.readouterr()
    assert {path.name for path in spilled} == {"scratch"}
    assert list((nets / "scratch").iterdir()) == [], "what lies there has no name, and ends with the process"
    wanted, found = (prunekit.load(name).state_dict() for name in ("plain", "slim"))
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    text = (nets / "slim" / "run.yaml").read_text()
    assert "offload: scratch" in text
    assert "offload_memory: 500MB" in text
    assert run(["run", "slim/run.yaml", "--out", "again"]) == 0
    assert all(torch.equal(prunekit.load("again").state_dict()[name], value) for name, value in wanted.items())


def test_a_run_file_says_where_a_memory_cannot_be_used(nets, capsys):
    (nets / "slim.yaml").write_text(
        "model: python:offload_nets:tiny_model\noffload: scratch\noffload_memory: 8 apples\n"
    )
    assert run(["run", "slim.yaml"]) == 2
    assert "slim.yaml, line 2, offload" in capsys.readouterr().err


def test_a_copy_is_one_and_lies_in_files_where_these_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(spilling, "_SMALL", 1)
    made = []
    monkeypatch.setattr("prunekit.offloading.copies.in_file", lambda t: (made.append(spilling.in_file(t)), made[-1])[1])
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    net[2].weight = net[0].weight
    net[0].bias.requires_grad_(False)
    net[2].bias._is_initialised = True  # as transformers marks what it has loaded
    with offloaded(tmp_path, memory="1GB"):
        copied = copied_in_files(net)
    held = {tensor.data_ptr() for tensor in made}
    assert all(tensor.data_ptr() in held for tensor in copied.parameters())
    assert copied[2].weight is copied[0].weight
    assert copied[2].bias._is_initialised
    assert [p.requires_grad for p in copied.parameters()] == [p.requires_grad for p in net.parameters()]
    with torch.no_grad():
        copied[0].weight.add_(1)
    assert not torch.equal(copied[0].weight, net[0].weight)
    plain = copied_in_files(net)
    assert all(torch.equal(a, b) and a is not b for a, b in zip(plain.parameters(), net.parameters(), strict=True))
