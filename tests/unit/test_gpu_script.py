"""The GPU script without a GPU: it says so; its parts run on a small model on the CPU and keep to their time."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks import gpu


def small():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)), lambda n: torch.ones(n, 6)


def broken():
    raise RuntimeError("this one does not build")


def test_without_a_gpu_it_says_so_and_writes_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main(["--out", str(tmp_path / "gpu.json")])
    assert "skipped: there is no GPU here" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_dense_and_pruned_are_timed_and_what_fails_is_said(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model: model)  # minutes of a compiler say nothing here
    found = dict(gpu.records("cpu", {"broken": (broken, 0.5), "small": (small, 0.5)}, 2, 60.0))
    assert "this one does not build" in found["broken"]["failed"]
    record = found["small"]
    assert record["params"]["after"] < record["params"]["before"]
    for which in ("dense", "pruned"):
        assert record[f"{which} training step"]["median"] > 0
        assert len(record[which]) == 8
        assert all(0 < ms["min"] <= ms["median"] <= ms["max"] for ms in record[which].values())


def test_what_there_is_no_time_for_is_listed(monkeypatch):
    found = dict(gpu.records("cpu", {"small": (small, 0.5)}, 1, 0.0))
    assert set(found["small"]["dense"].values()) == {"skipped: no time left"}
