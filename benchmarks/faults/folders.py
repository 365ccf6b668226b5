"""Saved folders that something has written over: what loads is what was saved, the rest is refused."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import torch
from torch import nn

import prunekit
from benchmarks.faults.counting import Section
from benchmarks.faults.mutation import with_another_value, with_other_bytes

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
FILES = ("model.safetensors", "plan.json", "model.json", "report.json", "checksums.json")


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 4, 1)).eval()


def saved_folders(count: int, seed: int, folder: Path) -> Section:
    """One file of a folder with checksums is changed at a time."""
    section, draw = Section("saved folders", seed), random.Random(seed)
    result = prunekit.prune(net(), X, ratio=0.5, scorer="magnitude")
    good = prunekit.save(result, folder / "good")
    with torch.no_grad():
        wanted = result.model(X)
    report = (good / "report.json").read_text()
    slim = folder / "slim"
    shutil.copytree(good, slim)

    def loaded():
        bundle = prunekit.checkpoints.read(slim, net())
        with torch.no_grad():
            return torch.equal(bundle.model(X), wanted)

    for number in range(count):
        file = slim / FILES[number % len(FILES)]
        content = (good / file.name).read_bytes()
        if file.name.endswith("json") and draw.random() < 0.7:
            file.write_text(with_another_value(content.decode(), draw))
        else:
            file.write_bytes(with_other_bytes(content, draw))
        changed = file.name == "report.json" and file.read_text(errors="replace") != report
        section.attempt(loaded, f"{file.name}, number {number}", right=lambda same, c=changed: same and not c)
        file.write_bytes(content)
    return section
