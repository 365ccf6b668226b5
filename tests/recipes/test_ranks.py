"""Two processes that share every batch train like one process with the whole batch, and cut by one plan."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.small_runs import small_run

from prunekit.errors import RecipeError
from prunekit.recipes.records import COMMON, Training
from prunekit.runs.distillation.joint import joined
from prunekit.runs.distillation.rate import batches, own_share, steps_in
from prunekit.runs.ranks import ALONE, ranks_of

pytest.importorskip("accelerate")
SCRIPT = str(Path(__file__).parents[1] / "support" / "small_runs.py")
TOLERANCE = 2e-5  # relative, of losses and weights: sums over a batch are taken in another order
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


# seven samples: the last batch of an epoch is one sample, of which the second rank has none
ODD = {"train_images": "7", "images": "7"}


def launched(tmp_path, out, *settings, folder="", stage=-1, event=-1, killed=False):
    """Two ranks of the small run: (plan, losses, weights) where they are not killed."""
    given = [*settings, "batch=1", *(f"{key}={value}" for key, value in ODD.items())]
    command = [*LAUNCH, SCRIPT, str(tmp_path / out), str(folder), str(stage), str(event), *given]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert bool(done.returncode) == killed, done.stderr
    if killed:
        return None
    told = json.loads((tmp_path / out / "run.json").read_text())
    return told["plan"], told["losses"], load_file(tmp_path / out / "weights.safetensors")


@pytest.fixture(scope="module")
def alone():
    """One rank with the whole batch."""
    losses, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)  # as torchrun sets it: the count of threads is an order of sums too
    try:
        one = small_run(
            listen=lambda heard: losses.append(heard.figures["loss"]) if "loss" in heard.figures else None,
            batch="2",
            **ODD,
        )
    finally:
        torch.set_num_threads(threads)
    return one, losses


def same(ranks, one, losses):
    plan, theirs, weights = ranks
    assert plan == one.plan.to_json()
    assert theirs == pytest.approx(losses, rel=TOLERANCE)
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_ranks_are_one_rank_with_the_whole_batch(tmp_path, alone):
    same(launched(tmp_path, "out"), *alone)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_divided_ranks_are_one_rank_too_and_when_killed_go_on_to_the_same_weights(tmp_path, alone):
    whole = launched(tmp_path, "whole", "sharded=true", folder=tmp_path / "run-whole")
    same(whole, *alone)
    folder = tmp_path / "run"
    launched(tmp_path, "killed", "sharded=true", folder=folder, stage=4, event=3, killed=True)
    gone_on = launched(tmp_path, "killed", "sharded=true", folder=folder)
    assert all(torch.equal(gone_on[2][name], value) for name, value in whole[2].items())
    assert 0 < len(gone_on[1]) < len(whole[1])


def settings_of(batch):
    return Training.of({**COMMON, "batch": batch, "epochs": 3})


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_shares_of_a_batch_are_the_batch(count, ranks):
    settings = settings_of(2)
    total = steps_in(count, settings, ranks)
    whole = list(batches(count, settings, total, ranks))
    assert len(whole) == total
    assert sorted(i for batch in whole for i in batch) == sorted(list(range(count)) * 3)
    for batch in whole:
        shares = [own_share(batch, settings, rank) for rank in range(ranks)]
        assert sum(part for _, part in shares) == pytest.approx(1)
        assert [i for mine, part in shares if part for i in mine] == batch
        assert all(mine for mine, _ in shares)


def test_more_ranks_see_the_samples_in_the_same_order():
    one = [i for batch in batches(9, settings_of(4), steps_in(9, settings_of(4), 1), 1) for i in batch]
    two = [i for batch in batches(9, settings_of(2), steps_in(9, settings_of(2), 2), 2) for i in batch]
    assert one == two


def test_alone_nothing_is_asked_of_anybody(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert ranks_of(torch.device("cpu")) is ALONE
    assert ALONE.decided(lambda: 3) == 3
    assert not ALONE.agreed(False)
    assert ALONE.shards(True) == 1
    line = torch.nn.Linear(1, 1)
    with joined(line, ALONE, settings_of(1)) as joint:
        assert joint.model is joint.call is line


def printed(text, folder):
    """The lines that two ranks of a script print."""
    script = folder / "script.py"
    script.write_text(text)
    return subprocess.run([*LAUNCH, str(script)], check=True, capture_output=True, text=True).stdout.splitlines()


SAYS = """
import sys, torch
from torch import nn
from prunekit.errors import RecipeError
from prunekit.recipes.records import COMMON, Training
from prunekit.runs.distillation.joint import joined
from prunekit.runs.ranks import leave, ranks_of
from prunekit.runs.reporting import skipped_in
from prunekit.samples import Skipped
ranks = ranks_of(torch.device("cpu"))
def refuse():
    raise RecipeError("no", where="here", hint="do")
try:
    ranks.decided(refuse)
except RecipeError as error:
    sys.stdout.write(f"{ranks.index} {error.what} {error.where} {error.hint}\\n")
met = [Skipped(f"x{n}", "broken") for n in range(ranks.index + 1)]
counted = skipped_in(ranks.gathered(met))
sys.stdout.write(f"{counted['count']} skipped, {counted['items'][1]['name']} too\\n")
torch.manual_seed(0)
student = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 8)))
before = [p.clone() for p in student.parameters()]
def settings(**changes):
    return Training.of({**COMMON, "sharded": True, **changes})
said = []
with joined(student, ranks, settings()) as joint:
    own = sum(p.to_local().numel() for p in joint.model.parameters())
    said.append(own / sum(p.numel() for p in before))
    with torch.no_grad():
        for p in joint.model.parameters():
            p.add_(1)
    said.append(all(torch.equal(p, q) for p, q in zip(student.parameters(), before)))
    joint.publish()
    said.append(all(torch.equal(p, q + 1) for p, q in zip(student.parameters(), before)))
said.append(all(type(p) is nn.Parameter for p in student.parameters()))
student.register_parameter("scale", nn.Parameter(torch.tensor(1.0)))
for model, changes, penalised in (
    (student, {}, False), (student[1], {"precision": "fp16"}, False), (student[1], {}, True)
):
    try:
        with joined(model, ranks, settings(**changes), penalised=penalised):
            pass
    except RecipeError as error:
        said.append(error.hint)
sys.stdout.write(f"{said}\\n")
leave()
"""


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_ranks_hear_of_refusals_and_skipped_samples_and_divide_a_student_that_comes_back_whole(tmp_path):
    hints = ["--set sharded=false", "--set precision=bf16", "--set sharded=false"]
    lines = printed(SAYS, tmp_path)
    heard = ["0 no here do", "1 no here do", *["2 skipped, x1 too"] * 2]
    assert sorted(lines) == sorted([*heard, *[str([0.5, True, True, True, *hints])] * 2])


def beside(count, out, folder, stage, event, killed, *settings):
    """``count`` ranks that nobody watches over, of which ``killed`` ends at that event: (exit code, stderr) of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "KILLED": str(killed)}
    command = [sys.executable, SCRIPT, str(out), str(folder), str(stage), str(event), *settings]
    ranks = [
        subprocess.Popen(
            command, env={**os.environ, **shared, "RANK": str(n), "LOCAL_RANK": str(n)}, stderr=-1, text=True
        )
        for n in range(count)
    ]
    return [(rank.communicate(timeout=150)[1], rank.returncode) for rank in ranks]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_where_one_rank_is_killed_the_other_says_so_and_another_number_of_ranks_goes_on(tmp_path):
    count = int(os.environ.get("PRUNEKIT_RANKS", "2"))
    *rest, (_, killed) = beside(count, tmp_path / "out", tmp_path / "run", 4, 2, count - 1, "batch=1")
    assert killed == -9
    for number, (told, code) in enumerate(rest):
        assert code == 1
        assert "PrunekitError: another rank has ended" in told
        assert f"[at rank {number} of {count}]" in told
    assert not (tmp_path / "out").exists()
    with pytest.raises(RecipeError, match=f"another batch of all ranks: {count}, not {count + 1}"):
        small_run(folder=tmp_path / "run", batch=str(count + 1))
    heard = []
    alone = small_run(folder=tmp_path / "run", listen=lambda event: heard.append(event.stage), batch=str(count))
    assert min(heard) == 4
    whole = small_run(batch=str(count))
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(alone.model.state_dict()[name], value, rtol=TOLERANCE, atol=TOLERANCE)
