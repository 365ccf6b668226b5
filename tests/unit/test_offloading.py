"""Weights in files: read when needed, given back, and every figure the same as in memory."""

import errno
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import prunekit
from prunekit.errors import CheckpointError, InputError
from prunekit.offloading import in_file, paging, spilling
from prunekit.runs.position import PART, PREVIOUS, Position
from tests.support.networks import build

HOWS = [{"scorer": prunekit.Magnitude()}, {"scorer": prunekit.Wanda(), "compensate": "ridge"}]


def wide(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 8)).eval()


def mapped(model, file):
    """``model`` anew, its weights mapped from ``file``."""
    save_file({name: value.clone() for name, value in model.state_dict().items()}, file)
    with torch.device("meta"):
        other = wide()
    other.load_state_dict(load_file(file), assign=True)
    return other.eval()


def data():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(4, 64, generator=generator) for _ in range(4)]


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("how", HOWS)
def test_the_result_is_that_of_memory_to_the_bit(tmp_path, how):
    file, scratch = tmp_path / "net.safetensors", tmp_path / "scratch"
    model, plain = mapped(wide(), file), mapped(wide(), tmp_path / "plain.safetensors")
    before, kept = file.read_bytes(), {name: value.clone() for name, value in model.state_dict().items()}
    wanted = prunekit.prune(plain, data()[0], ratio=0.5, data=data(), **how)
    with prunekit.offloaded(scratch, memory=1):  # less than it can be: pages are given back all the time
        found = prunekit.prune(model, data()[0], ratio=0.5, data=data(), **how)
    assert found.plan == wanted.plan
    assert same(model, plain)
    assert str(scratch) in Path("/proc/self/maps").read_text()  # what was made lies there
    assert list(scratch.iterdir()) == []  # and has no name any more
    prunekit.save(found, tmp_path / "slim")
    assert same(prunekit.load(tmp_path / "slim", wide()), plain)
    found.undo()
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert file.read_bytes() == before


@pytest.mark.parametrize("seed", range(4))
def test_random_networks_too(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(spilling, "_SMALL", 1)
    (network, inputs), (again, _) = build(seed), build(seed)
    prunekit.prune(network, inputs, ratio=0.4, scorer="magnitude")
    with prunekit.offloaded(tmp_path, memory="1MB"):
        prunekit.prune(again, inputs, ratio=0.4, scorer="magnitude")
    assert same(network, again)


def test_pages_of_files_are_given_back_and_what_was_written_stays(tmp_path):
    save_file({"w": torch.ones(2**24)}, tmp_path / "big.safetensors")
    weight = load_file(tmp_path / "big.safetensors")["w"]
    pager = paging.Pager(1, tmp_path)
    weight[:1000] = 2  # as a training step would do in place
    assert weight.sum() == 2**24 + 1000
    held = paging.resident()
    pager()
    assert paging.resident() < held - 2**25
    assert weight.sum() == 2**24 + 1000


def test_memory_is_looked_at_after_every_product_and_weight_and_not_by_the_thread_alone(tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr(paging.Pager, "__call__", lambda pager: looked.append(threading.current_thread()))
    with prunekit.offloaded(tmp_path, memory=1):
        prunekit.prune(wide(), data()[0], ratio=0.5, scorer="magnitude", verify="shapes")
        after_weights = looked.count(threading.main_thread())
        prunekit.prune(wide(), data()[0], ratio=0.5, scorer=prunekit.Wanda(), data=data(), verify="shapes")
    assert after_weights >= 3
    assert looked.count(threading.main_thread()) - after_weights >= after_weights + 3 * len(data())


def test_training_in_place_is_never_lost(tmp_path):
    model = mapped(wide(), tmp_path / "net.safetensors")
    other = wide()
    with prunekit.offloaded(tmp_path, memory=1):
        for net in (model, other):
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
            for x in data():
                net(x).square().sum().backward()
                optimizer.step()
                optimizer.zero_grad()
        assert same(model, other)


def test_a_full_disk_is_told_and_nothing_changed(tmp_path, monkeypatch):
    model = wide()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spilling.os, "posix_fallocate", full)
    with prunekit.offloaded(tmp_path, memory="1GB"), pytest.raises(CheckpointError, match="No space left"):
        prunekit.prune(model, data()[0], ratio=0.5, scorer="magnitude")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert list(tmp_path.iterdir()) == []


def test_what_a_run_keeps_of_its_position_lies_in_files_too(tmp_path, monkeypatch):
    monkeypatch.setattr(spilling, "_SMALL", 1)
    part = wide()
    with prunekit.offloaded(tmp_path, memory="1MB"):
        kept = Position().tensors(part, part)
    assert all(torch.equal(kept[f"{PART}{name}"], value) for name, value in part.state_dict().items())
    weights = [value for name, value in kept.items() if name.startswith((PART, PREVIOUS))]
    assert all(value.untyped_storage().filename is not None for value in weights), "storages of files"


def test_outside_nothing_goes_to_files():
    tensor = torch.ones(2**20)
    assert in_file(tensor) is tensor


@pytest.mark.parametrize("memory", [0, -1, True, "much", "8 TB x", float("nan"), None, "0GB"])
def test_a_size_that_is_none(tmp_path, memory):
    with pytest.raises(InputError, match="memory"), prunekit.offloaded(tmp_path, memory):
        pass


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be used"), prunekit.offloaded(tmp_path / "file" / "x", 1):
        pass


def test_a_system_that_takes_no_advice(tmp_path, monkeypatch):
    monkeypatch.setattr(paging.sys, "platform", "other")
    with pytest.raises(InputError, match="takes no advice"), prunekit.offloaded(tmp_path, 1):
        pass


def test_weights_that_are_elsewhere_are_named():
    model = wide()
    model[2].weight = nn.Parameter(torch.empty(512, 512, device="meta"))
    with pytest.raises(prunekit.PrunekitError, match=r"1 of 6 .* meta device.*2\.weight"):
        prunekit.prune(model, data()[0], ratio=0.5)


@pytest.mark.parametrize(("memory", "checked"), [(1, False), ("1GB", True)])
def test_the_check_of_symmetry_copies_weights_and_is_left_out_by_itself_where_these_are_too_much(
    tmp_path, memory, checked
):
    with prunekit.offloaded(tmp_path, memory=memory):
        result = prunekit.prune(wide(), data()[0], ratio=0.5, scorer="magnitude")
    assert ("symmetry_error" in result.report.verify) == checked


def test_a_model_that_runs_gives_back_after_every_module(tmp_path, monkeypatch):
    """The watching thread alone is slower than a forward pass that reads cached pages."""
    by = []
    monkeypatch.setattr(paging.Pager, "__call__", lambda self: by.append(threading.current_thread()))
    model, here = wide(), threading.current_thread()
    with prunekit.offloaded(tmp_path, memory="1GB"):
        model(data()[0])
    assert by.count(here) == 1 + len(model)
    model(data()[0])
    assert by.count(here) == 1 + len(model)
