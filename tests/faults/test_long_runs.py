"""A run that is stopped, refused by its disk or gone wrong loses nothing, deletes nobody's file, and says so."""

from __future__ import annotations

import errno
import itertools
import threading
import time

import pytest
import torch

from benchmarks.faults.tiny import STEPS, tiny_model, tiny_run
from prunekit.errors import CheckpointError, RecipeError
from prunekit.runs import keeping
from prunekit.runs.distillation import loop
from prunekit.runs.distillation.disk_store import Disk
from prunekit.runs.keeping import STATE, RunFolder, locked
from prunekit.runs.stopping import Stopped

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def undisturbed():
    return tiny_run().model.state_dict()


def same(result, weights):
    found = result.model.state_dict()
    return found.keys() == weights.keys() and all(torch.equal(value, weights[name]) for name, value in found.items())


def after(count):
    """Says yes from the call number ``count`` on."""
    calls = itertools.count()
    return lambda: next(calls) >= count


@pytest.mark.parametrize("count", [0, 3, 6, 7], ids=["after the cut", "in training", "after it", "in an evaluation"])
def test_a_run_that_is_asked_to_end_keeps_what_it_did(tmp_path, undisturbed, count):
    events = []
    with pytest.raises(Stopped):
        tiny_run(tmp_path / "run", events.append, stop=after(count))
    assert (tmp_path / "run" / STATE).is_file()
    again = []
    assert same(tiny_run(tmp_path / "run", again.append), undisturbed)
    steps = [[event.done for event in heard if event.unit == "steps"] for heard in (events, again)]
    assert (max(steps[0]) == min(steps[1]) == 3) if count == 3 else not (steps[0] and steps[1])


def test_two_runs_into_one_folder(tmp_path):
    folder, refused = tmp_path / "run", []

    def second(event):
        before = sorted((file.name, file.read_bytes()) for file in folder.glob("*.*"))
        for resume in (True, False):
            try:
                tiny_run(folder, resume=resume)
            except RecipeError as error:
                refused.append(error.what)
        assert sorted((file.name, file.read_bytes()) for file in folder.glob("*.*")) == before
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_run(folder, second)
    assert refused == ["another run is at work in this folder"] * 2


def test_a_lock_goes_with_its_process_and_a_user_s_file_stays(tmp_path):
    cache = tmp_path / "run" / "teachers" / "0"
    cache.mkdir(parents=True)
    for file in (cache.parents[1] / "tensors-mine.safetensors", cache / "mine.safetensors", cache / "a-3-output.123"):
        file.touch()
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "run"):
        raise ZeroDivisionError
    left = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file())
    assert left == ["run/teachers/0/mine.safetensors", "run/tensors-mine.safetensors"]
    with locked(tmp_path / "run"):
        pass


@pytest.mark.parametrize("where", ["save_file", "fsync", "replace"])
def test_a_full_disk_is_said_and_what_was_kept_is_whole(tmp_path, undisturbed, monkeypatch, where):
    def full(*given, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    def listen(event):
        if event.unit == "steps" and event.done == 3:
            monkeypatch.setattr("safetensors.torch.save_file" if where == "save_file" else f"os.{where}", full)

    with pytest.raises(CheckpointError, match=r"No space left.*what was kept before is whole"):
        tiny_run(tmp_path / "run", listen)
    monkeypatch.undo()
    assert sorted(file.suffix for file in (tmp_path / "run").iterdir()) == [".json", ".lock", ".safetensors"]
    assert same(tiny_run(tmp_path / "run"), undisturbed)


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_training_that_is_not_finite_stops_with_the_weights_from_before(tmp_path, monkeypatch, what, clip):
    seen, losses, count = [], loop.term_losses, itertools.count()
    broken = {"loss": float("nan"), "gradient": float("inf")}[what]

    def term_losses(student, *given, **named):
        seen.append({name: value.detach().clone() for name, value in student.state_dict().items()})
        found = losses(student, *given, **named)
        if next(count) == 3:
            found = {name: _Bent.apply(value, broken, what) for name, value in found.items()}
        return found

    monkeypatch.setattr(loop, "term_losses", term_losses)
    built = []
    monkeypatch.setattr("benchmarks.faults.tiny.tiny_model", lambda: built.append(tiny_model()) or built[0])
    with pytest.raises(RecipeError, match=f"(?s)the {what} is not finite at step 3.*lr=0.001") as caught:
        tiny_run(tmp_path / "run", clip=clip)
    assert ("clip=1" in str(caught.value)) == (clip == 0)
    assert all(torch.equal(value, seen[3][name]) for name, value in built[0].state_dict().items())
    assert len(seen) == 4 < STEPS


class _Bent(torch.autograd.Function):
    """A loss, or its gradient, that is not finite."""

    @staticmethod
    def forward(ctx, value, broken, what):
        ctx.broken = broken
        return value * broken if what == "loss" else value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.broken, None, None


def test_weights_that_are_not_finite_are_never_kept(tmp_path, monkeypatch):
    model = tiny_model()
    monkeypatch.setattr("benchmarks.faults.tiny.tiny_model", lambda: model)

    def listen(event):
        if event.unit == "steps" and event.done == 3:
            model[2].bias.data[1] = float("inf")

    with pytest.raises(RecipeError, match=r"not finite: 2\.bias; they are not kept"):
        tiny_run(tmp_path / "run", listen)
    kept = RunFolder(tmp_path / "run", {}).kept()
    assert kept.position["loop"]["step"] == 2
    assert all(bool(value.isfinite().all()) for value in kept.tensors.values() if value.is_floating_point())


@pytest.mark.parametrize("damage", ["cut", "zeros", "bit"])
def test_a_damaged_cache_of_a_teacher_is_made_again(tmp_path, damage):
    made, wanted = [], torch.arange(100.0)

    def make():
        made.append(1)
        return [wanted]

    Disk(tmp_path)("a-0-output", make)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "zeros":
        content[-50:] = bytes(50)
    else:
        content[-3] ^= 4
    file.write_bytes(content)
    disk = Disk(tmp_path)
    assert torch.equal(disk("a-0-output", make)[0], wanted)
    assert torch.equal(disk("a-0-output", make)[0], wanted)
    assert len(made) == 2


def test_a_cache_of_a_run_that_kept_nothing_is_not_used(tmp_path, undisturbed):
    wanted = tiny_run(tmp_path / "one", teacher_cache="disk", cache_gb=1.0).model.state_dict()
    stale = Disk(tmp_path / "two" / "teachers" / "1")
    for index in range(4):
        stale(f"original-{index}-output", lambda: [torch.full((1, 4), 7.0)])
    assert same(tiny_run(tmp_path / "two", teacher_cache="disk", cache_gb=1.0), wanted)


@pytest.mark.parametrize("name", [STATE, "tensors"])
def test_a_state_with_another_bit_is_refused(tmp_path, name):
    folder = RunFolder(tmp_path, {"model": "m"})
    folder.keep({"stage": 1, "x": float("nan")}, {"x": torch.ones(30)})
    assert folder.kept().position["stage"] == 1
    file = next(file for file in tmp_path.iterdir() if file.name.startswith(name))
    content = bytearray(file.read_bytes())
    place = content.index(b'"stage": 1') + 9 if name == STATE else len(content) - 2
    content[place] ^= 2
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        folder.kept()


def test_a_reader_that_dies_ends_the_run_and_it_can_be_gone_on_with(tmp_path, undisturbed, monkeypatch):
    reads = itertools.count()
    whole = tiny_run.__globals__["run"].__globals__["begun"]

    def begun(job, **named):
        found = whole(job, **named)
        encode = found.train.encode

        def dies(items):
            if threading.current_thread().name.startswith("encode") and next(reads) == 2:
                raise RuntimeError("the reader is gone")
            return encode(items)

        object.__setattr__(found.train, "encode", dies)
        return found

    monkeypatch.setitem(tiny_run.__globals__["run"].__globals__, "begun", begun)
    with pytest.raises(RuntimeError, match="the reader is gone"):
        tiny_run(tmp_path / "run")
    monkeypatch.undo()
    assert (tmp_path / "run" / STATE).is_file()
    assert same(tiny_run(tmp_path / "run"), undisturbed)


def test_a_clock_that_is_set_back_changes_nothing(tmp_path, undisturbed, monkeypatch):
    clock = itertools.count(time.time(), -3600)
    monkeypatch.setattr(time, "time", lambda: next(clock))
    saves, keep = [], keeping.RunFolder.keep
    monkeypatch.setattr(keeping.RunFolder, "keep", lambda *given: saves.append(1) or keep(*given))
    assert same(tiny_run(tmp_path / "run"), undisturbed)
    assert len(saves) == 3 + STEPS - 1
