"""A run that dies anywhere and is gone on with ends as if it had not, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.small_runs import GROWING, STAGED, network, small_run
from support.sweeps import but_for_sweeps

from prunekit.errors import CheckpointError, RecipeError
from prunekit.recipes import override
from prunekit.runs import run
from prunekit.runs.keeping import STATE, RunFolder, weights_digest
from prunekit.scorers import DisturbedTaylor, Magnitude


class Killed(BaseException):
    """Ends a run where it is; nothing in the library catches it."""


def killed_at(event):
    """A listener that ends the run at that event, counted from the start of the process; None never does."""
    heard = []

    def listen(told):
        heard.append(told)
        if event is not None and len(heard) > event:
            raise Killed

    return listen, heard


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture(scope="module", params=["staged", "growing"])
def undisturbed(request):
    recipe = {"staged": STAGED, "growing": GROWING}[request.param]
    listen, heard = killed_at(None)
    result = small_run(recipe, listen=listen)
    return recipe, result, len(heard)


@pytest.mark.parametrize("part", but_for_sweeps([0.02, 0.15, 0.3, 0.45, 0.6, 0.8, 0.97], {0.15, 0.45, 0.8}))
def test_killed_anywhere_and_resumed(undisturbed, tmp_path, part):
    recipe, wanted, events = undisturbed
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        small_run(recipe, folder, killed_at(int(part * events))[0])
    listen, heard = killed_at(None)
    result = small_run(recipe, folder, listen)
    assert same(result.model.state_dict(), wanted.model.state_dict())
    assert result.plan == wanted.plan
    assert result.report["metrics"] == wanted.report["metrics"]
    if part > 0.2:
        assert len(heard) < events  # it did go on, and did not start again


def test_precision_disk_and_checkpointing_are_resumed_exactly(tmp_path):
    settings = {"precision": "bf16", "teacher_cache": "disk", "checkpointing": True}
    wanted = small_run(folder=tmp_path / "one", **settings)
    with pytest.raises(Killed):
        small_run(STAGED, tmp_path / "two", killed_at(20)[0], **settings)
    assert same(small_run(folder=tmp_path / "two", **settings).model.state_dict(), wanted.model.state_dict())


def test_a_run_that_is_over_is_not_made_again(tmp_path):
    wanted = small_run(folder=tmp_path / "run")
    listen, heard = killed_at(None)
    assert same(small_run(STAGED, tmp_path / "run", listen).model.state_dict(), wanted.model.state_dict())
    assert not heard


def interrupted(folder):
    with pytest.raises(Killed):
        small_run(STAGED, folder, killed_at(16)[0])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: small_run(folder=f, lr=1e-5), "another settings"),
        (lambda f: small_run(GROWING, f), "another recipe"),
        (lambda f: run(network(), STAGED, Magnitude(), ratio=0.5, folder=f, resume=True), "another scorer"),
        (lambda f: run(network(), STAGED, DisturbedTaylor(), ratio=0.4, folder=f, resume=True), "another goal"),
        (lambda f: small_run(folder=f, resume=False), "was interrupted here"),
    ],
)
def test_another_run_is_refused(tmp_path, change, says):
    interrupted(tmp_path / "run")
    before = sorted((file.name, file.stat().st_size) for file in (tmp_path / "run").iterdir())
    with pytest.raises(RecipeError, match=says):
        change(tmp_path / "run")
    assert sorted((file.name, file.stat().st_size) for file in (tmp_path / "run").iterdir()) == before


def test_other_weights_are_refused(tmp_path):
    interrupted(tmp_path / "run")
    built = network()
    with torch.no_grad():
        next(built.model.parameters()).add_(1e-3)
    with pytest.raises(RecipeError, match="another weights"):
        run(built, STAGED, DisturbedTaylor(), ratio=0.5, folder=tmp_path / "run", resume=True)


def test_settings_that_decide_nothing_may_differ(tmp_path):
    interrupted(tmp_path / "run")
    small_run(override(STAGED, {"save_minutes": 5.0}), tmp_path / "run")


@pytest.mark.parametrize("damage", ["state", "tensors"])
def test_what_cannot_be_read_is_named(tmp_path, damage):
    interrupted(tmp_path / "run")
    file = tmp_path / "run" / STATE if damage == "state" else next((tmp_path / "run").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=file.name):
        small_run(folder=tmp_path / "run")


def test_a_process_that_dies_while_it_keeps_leaves_the_old_state(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run", {"model": "m"})
    folder.keep({"stage": 1}, {"x": torch.ones(3)})
    for step in ("fsync", "replace"):
        monkeypatch.setattr(os, step, lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            folder.keep({"stage": 2}, {"x": torch.zeros(3)})
        monkeypatch.undo()
        kept = folder.kept()
        assert kept.position == {"stage": 1}
        assert torch.equal(kept.tensors["x"], torch.ones(3))
    folder.keep({"stage": 2}, {"x": torch.zeros(3)})
    assert folder.kept().position == {"stage": 2}
    assert len(list((tmp_path / "run").glob("tensors-*"))) == 1


def test_fingerprints_see_values_shapes_and_names():
    a, b = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    b.load_state_dict(a.state_dict())
    assert weights_digest(a) == weights_digest(b)
    with torch.no_grad():
        b.bias[0] += 1e-6
    assert weights_digest(a) != weights_digest(b)


SCRIPT = str(Path(__file__).parents[1] / "support" / "small_runs.py")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sigkill_in_every_stage(tmp_path):
    """Processes one after the other, each killed by SIGKILL at an event of one of the six stages."""
    generator = torch.Generator().manual_seed(3)
    stages = (0, 1, 2, 2, 2, 3, 4, 4, 4, 5) if os.environ.get("FAULTS") == "large" else range(6)
    events = [int(torch.randint(0, 2, (), generator=generator)) for _ in stages]
    asked = [",".join(map(str, [*each, -1])) for each in (stages, events)]
    subprocess.run([sys.executable, SCRIPT, str(tmp_path / "out"), str(tmp_path / "run"), *asked], check=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # their number is an order of sums, and the script has one
    try:
        wanted = small_run()
    finally:
        torch.set_num_threads(threads)
    assert same(load_file(tmp_path / "out" / "weights.safetensors"), wanted.model.state_dict())
    assert json.loads((tmp_path / "out" / "run.json").read_text())["plan"] == wanted.plan.to_json()
