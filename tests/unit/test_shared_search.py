"""``prunekit.search(over_ranks=True)``: two processes score the trials of one search."""

import json

import pytest
from support.shared_search import SAMPLERS, TRIALS, searched

pytest.importorskip("optuna")
pytestmark = pytest.mark.timeout(600)  # whoever is first starts the ranks


@pytest.fixture(scope="module")
def ranks(two_ranks):
    return [json.loads((two_ranks["shared_search"] / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_both_find_the_same_and_each_scores_a_part(ranks, sampler):
    (one, mine), (other, theirs) = (rank[sampler] for rank in ranks)
    assert one == other
    assert len(one["scores"]) == TRIALS
    assert one["untouched"]
    assert max(mine, theirs) <= (TRIALS + 1) // 2
    assert one["best"][1] == max(one["scores"])


def test_what_draws_without_looking_is_the_search_of_one_process(ranks):
    alone, scored = searched("random", over_ranks=False)
    assert scored > TRIALS // 2
    assert json.loads(json.dumps(alone)) == ranks[0]["random"][0]


def test_the_first_rank_keeps_the_trials_and_tells_of_them(ranks):
    assert len(ranks[0]["resumed"][0]["scores"]) == TRIALS
    assert ranks[0]["resumed"][0] == ranks[1]["resumed"][0]
    assert ranks[0]["heard"] == [[n, 4] for n in range(1, 5)] + [[n, TRIALS] for n in range(5, TRIALS + 1)]
    assert ranks[1]["heard"] == []


def test_where_one_fails_all_do_and_the_model_stays(ranks):
    first, second = (rank["fails"][0] for rank in ranks)
    assert "no light" in second["error"]
    assert "rank 1" in first["error"]
    assert first["untouched"]
    assert second["untouched"]


def test_ranks_that_ask_for_different_searches_are_refused(ranks):
    for rank in ranks:
        assert "the ranks differ in what is searched" in rank["differs"][0]["error"]


def test_without_a_process_group_it_is_refused():
    told, scored = searched("random")
    assert "over_ranks shares trials" in told["error"]
    assert not scored
