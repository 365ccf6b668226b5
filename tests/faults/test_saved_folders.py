"""Saving is one step: a fault, a full disk or a kill leaves the old folder or the new one, and nobody's file goes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess

import pytest
import torch
from torch import nn

import prunekit
from benchmarks.faults.injection import faulted, lines_of, points
from prunekit.checkpoints import read
from prunekit.errors import CheckpointError
from prunekit.files import disk, folders

POINTS = 400 if os.environ.get("FAULTS") == "large" else 16
X = torch.ones(1, 3, 8, 8)


def pruned(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    return prunekit.prune(net, X, ratio=0.5, scorer="magnitude")


def fresh():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))


def held(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def old_and_new(tmp_path):
    folder, result = tmp_path / "slim", pruned(1)
    prunekit.save(pruned(0), folder)
    (folder / "mine.txt").write_text("notes")
    old = held(folder)
    prunekit.save(result, tmp_path / "other")
    new = held(tmp_path / "other")
    shutil.rmtree(tmp_path / "other")
    return folder, result, old, {**new, **{name: old[name] for name in old if name.name == "mine.txt"}}


@pytest.mark.parametrize("in_one_step", [True, False])
def test_a_fault_at_any_line_leaves_the_old_folder_or_the_new_one(old_and_new, monkeypatch, in_one_step):
    folder, result, old, new = old_and_new
    if not in_one_step:
        monkeypatch.setattr(disk.ctypes, "CDLL", lambda *_, **__: object())  # a system without such a call
    total = lines_of(lambda: prunekit.save(result, folder))
    assert held(folder) == new
    for at in points(total, POINTS, 0):
        shutil.rmtree(folder)
        for name, content in old.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        faulted(lambda: prunekit.save(result, folder), at)
        beside = {name: file for place in folder.parent.iterdir() for name, file in held(place).items()}
        assert beside[next(name for name in old if name.name == "mine.txt")] == b"notes"
        found = {name: content for name, content in held(folder).items() if name.name != "mine.txt"}
        assert found in [{n: c for n, c in each.items() if n.name != "mine.txt"} for each in (old, new)], at
        for place in folder.parent.iterdir():
            if place != folder:
                shutil.rmtree(place)


def test_what_prunekit_did_not_write_stays(tmp_path):
    folder = tmp_path / "slim"
    prunekit.save(pruned(0), folder, extras={"picture.png": lambda path: path.write_bytes(b"old")})
    (folder / "notes" / "deep").mkdir(parents=True)
    (folder / "notes" / "deep" / "mine.txt").write_text("mine")
    (folder / "export.bin").write_text("mine too")
    (folder / "link").symlink_to(tmp_path)
    prunekit.save(pruned(1), folder, extras={"export.bin": lambda path: path.write_bytes(b"new")})
    assert (folder / "notes" / "deep" / "mine.txt").read_text() == "mine"
    assert (folder / "export.bin.before").read_text() == "mine too"
    assert (folder / "export.bin").read_bytes() == b"new"
    assert (folder / "link").is_symlink()
    assert not (folder / "picture.png").exists()
    assert [place.name for place in tmp_path.iterdir()] == ["slim"]


def test_a_folder_of_an_older_version_is_replaced(tmp_path):
    folder = tmp_path / "slim"
    prunekit.save(pruned(0), folder)
    (folder / "checksums.json").unlink()
    (folder / "masks.png").write_text("what an older version drew, or somebody else")
    prunekit.save(pruned(1), folder)
    assert not list(folder.glob("*.before"))
    assert (folder / "masks.png").is_file()


def test_a_link_is_followed_and_stays_a_link(tmp_path):
    (tmp_path / "big disk").mkdir()
    (tmp_path / "slim").symlink_to(tmp_path / "big disk")
    for seed in (0, 1):
        prunekit.save(pruned(seed), tmp_path / "slim")
    assert (tmp_path / "slim").is_symlink()
    assert (tmp_path / "big disk" / "plan.json").is_file()


def test_everything_reaches_the_disk_before_the_folder_gets_its_name(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(folders, "flushed_tree", lambda folder: done.extend(sorted(held(folder))))
    monkeypatch.setattr(folders, "flushed", lambda path: done.append(path.name))
    monkeypatch.setattr(folders, "exchanged", lambda one, other: done.append("exchanged") or disk.exchanged(one, other))
    prunekit.save(pruned(0), tmp_path / "slim")
    done.clear()
    prunekit.save(pruned(1), tmp_path / "slim")
    before, after = [str(each) for each in done[: done.index("exchanged")]], done[done.index("exchanged") + 1 :]
    written = sorted(map(str, held(tmp_path / "slim")))
    assert sorted(before[:-1]) == written  # every file once, then the names in the folder, then its place
    assert before[-1].startswith(".slim.")
    assert after == [tmp_path.name]
    flushed = []
    monkeypatch.setattr(disk.os, "fsync", lambda handle: flushed.append(os.readlink(f"/proc/self/fd/{handle}")))
    disk.flushed_tree(tmp_path / "slim")
    assert set(flushed) == {
        str(tmp_path / "slim"),
        *(str(tmp_path / "slim" / name) for name in held(tmp_path / "slim")),
    }


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("where", ["fsync", "replace", "mkdtemp"])
def test_a_disk_that_refuses_is_named_and_the_old_folder_stays(old_and_new, monkeypatch, number, where):
    folder, result, old, _ = old_and_new

    def refuse(*given, **named):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(folders.tempfile if where == "mkdtemp" else os, where, refuse)
    if where == "replace":
        monkeypatch.setattr(disk.ctypes, "CDLL", lambda *_, **__: object())
    with pytest.raises(CheckpointError, match=f"{os.strerror(number)}.*as it was"):
        prunekit.save(result, folder)
    monkeypatch.undo()
    assert held(folder) == old
    assert [place.name for place in folder.parent.iterdir()] == ["slim"]


@pytest.mark.parametrize("fails", [1, 2, 3])
def test_without_one_step_a_rename_that_fails_is_taken_back(tmp_path, monkeypatch, fails):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    calls, replace = iter(range(1, 9)), os.replace

    def sometimes(source, target):
        if next(calls) == fails:
            raise OSError(errno.EIO, "no")
        replace(source, target)

    monkeypatch.setattr(disk.ctypes, "CDLL", lambda *_, **__: object())
    monkeypatch.setattr(os, "replace", sometimes)
    with pytest.raises(OSError, match="no"):
        disk.exchanged(tmp_path / "one", tmp_path / "other")
    assert (tmp_path / "other" / ("one" if fails == 3 else "other")).is_file()


def test_a_full_disk(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        prunekit.save(pruned(0), small / "slim")
        old = held(small / "slim")
        big = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 64))
        result = prunekit.prune(big, torch.ones(1, 64), ratio=0.2, scorer="magnitude")
        with pytest.raises(CheckpointError, match="No space left"):
            prunekit.save(result, small / "slim")
        assert held(small / "slim") == old
        assert [place.name for place in small.iterdir()] == ["slim"]
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_every_file_has_a_checksum_and_those_that_are_read_are_verified(tmp_path):
    folder = tmp_path / "slim"
    prunekit.save(pruned(0), folder, extras={"picture.png": lambda path: path.write_bytes(b"x")})
    assert {*json.loads((folder / "checksums.json").read_text()), "checksums.json"} == set(map(str, held(folder)))
    report = folder / "report.json"
    report.write_text(report.read_text().replace("0.5", "0.6"))
    with pytest.raises(CheckpointError, match=r"report\.json is damaged"):
        read(folder, fresh())


@pytest.mark.parametrize(("value", "named"), [(float("nan"), True), (float("inf"), True), (1e38, False)])
def test_weights_that_are_not_finite_are_named(tmp_path, caplog, value, named):
    result = pruned(0)
    with torch.no_grad():
        result.model[2].weight.fill_(value)
    prunekit.save(result, tmp_path / "slim")
    prunekit.load(tmp_path / "slim", fresh())
    assert ("not finite: 2.weight" in caplog.text) == named
