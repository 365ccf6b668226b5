"""Two processes that share every batch train like one process with the whole batch, and cut by one plan."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import load_file
from support.launching import launched
from support.runs_of_ranks import ODD, one_is_killed
from support.small_runs import small_run

from prunekit.errors import RecipeError
from prunekit.recipes.records import COMMON, Training
from prunekit.runs.distillation.joint import joined
from prunekit.runs.distillation.rate import batches, own_share, steps_in
from prunekit.runs.ranks import ALONE, ranks_of

pytest.importorskip("accelerate")
TOLERANCE = 2e-5  # relative, of losses and weights: sums over a batch are taken in another order
KILLED = -9


@pytest.fixture(scope="module")
def ranks(two_ranks):
    """The folder of the runs of two ranks, and how each of them ended."""
    return two_ranks["runs"], two_ranks["ends"]


def left(ranks, name, out):
    """(plan, losses, weights) of a run."""
    folder, ends = ranks
    assert [code for code, _, _ in ends[name]] == [0, 0], ends[name]
    told = json.loads((folder / out / "run.json").read_text())
    return told["plan"], told["losses"], load_file(folder / out / "weights.safetensors")


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
@pytest.mark.timeout(600)
def test_two_ranks_are_one_rank_with_the_whole_batch(ranks, alone):
    same(left(ranks, "plain", "plain"), *alone)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_divided_ranks_are_one_rank_too_and_when_killed_go_on_to_the_same_weights(ranks, alone):
    whole = left(ranks, "whole", "whole")
    same(whole, *alone)
    codes = [code for code, _, _ in ranks[1]["killed"]]
    assert all(codes)
    assert KILLED in codes
    gone_on = left(ranks, "gone on", "divided")
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


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ranks_hear_of_refusals_and_skipped_samples_and_divide_a_student_that_comes_back_whole(ranks):
    hints = ["--set sharded=false", "--set precision=bf16", "--set sharded=false"]
    assert [code for code, _, _ in ranks[1]["says"]] == [0, 0], ranks[1]["says"]
    lines = [line for _, out, _ in ranks[1]["says"] for line in out.splitlines()]
    heard = ["0 no here do", "1 no here do", *["2 skipped, x1 too"] * 2]
    assert sorted(lines) == sorted([*heard, *[str([0.5, True, True, True, *hints])] * 2])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_where_one_rank_is_killed_the_other_says_so_and_another_number_of_ranks_goes_on(request, tmp_path):
    count = int(os.environ.get("PRUNEKIT_RANKS", "2"))
    if count == 2:
        folder, ends = request.getfixturevalue("ranks")
    else:
        folder, ends = tmp_path, launched(count, tmp_path, {"one is killed": one_is_killed(tmp_path, count)})
    *rest, (killed, _, _) = ends["one is killed"]
    assert killed == KILLED
    for number, (code, _, told) in enumerate(rest):
        assert code == 1
        assert "PrunekitError: another rank has ended" in told
        assert f"[at rank {number} of {count}]" in told
    assert not (folder / "one-killed").exists()
    kept = folder / "run-one-killed"
    with pytest.raises(RecipeError, match=f"another batch of all ranks: {count}, not {count + 1}"):
        small_run(folder=kept, batch=str(count + 1))
    heard = []
    alone = small_run(folder=kept, listen=lambda event: heard.append(event.stage), batch=str(count))
    assert min(heard) == 4
    whole = small_run(batch=str(count))
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(alone.model.state_dict()[name], value, rtol=TOLERANCE, atol=TOLERANCE)
