"""Two processes that share calibration samples score and plan as one that has all of them."""

from __future__ import annotations

import json

import pytest
import torch
from support.shared_calibration import SCORERS, WAYS, X, network, pruned_by, samples, scores_seen

import prunekit
from prunekit.errors import InputError
from prunekit.inputs.per_rank import ALONE

pytestmark = pytest.mark.timeout(600)  # whoever is first starts the ranks
TOLERANCE = 1e-5  # relative, of scores: float32 sums are taken in another order


@pytest.fixture(scope="module")
def ranks(two_ranks):
    return [json.loads((two_ranks["shared_calibration"] / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCORERS)
def test_the_ranks_have_the_scores_of_one_rank_and_all_the_same_plan(ranks, name):
    assert ranks[0][name] == ranks[1][name], "to the bit"
    plan, scores = scores_seen(network(), samples(), SCORERS[name])
    there, theirs = ranks[0][name]
    assert theirs.keys() == scores.keys()
    for group, values in scores.items():
        torch.testing.assert_close(torch.tensor(theirs[group]), torch.tensor(values), rtol=TOLERANCE, atol=0)
    assert json.loads(there) == json.loads(plan.to_json())


@pytest.mark.slow
def test_pruning_within_a_target_is_the_same_on_every_rank(ranks):
    assert ranks[0]["pruned"] == ranks[1]["pruned"]
    alone = prunekit.prune(network(), X, data=samples(), target="macs<=50%")
    assert ranks[0]["pruned"][1] == alone.report.macs["after"]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_ranks_do_together_what_one_rank_does(ranks, way):
    assert ranks[0]["ways"][way] == ranks[1]["ways"][way], "to the bit"
    plan, state = pruned_by(way, samples())
    there, theirs = ranks[0]["ways"][way]
    assert json.loads(there) == json.loads(plan)
    assert theirs.keys() == state.keys()
    for name, values in state.items():
        torch.testing.assert_close(torch.tensor(theirs[name]), torch.tensor(values), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("unequal", "the ranks differ in the number of samples"),
        ("not a number", "an activation of 0.weight is not finite"),
        ("a loss that is none", "rank 1: the loss is not finite"),
        ("an empty share", "rank 1: the calibration data holds no sample"),
        ("other options", "the ranks differ in what was planned"),
        ("a group that is not there", "rank 1: "),
        ("a refit of unequal shares", "the ranks differ in the number of samples"),
        ("other weights", "the ranks differ in weights"),
    ],
)
def test_what_goes_wrong_on_a_rank_ends_all_and_leaves_the_models_as_they_were(ranks, what, said):
    for rank, told in enumerate(ranks):
        text = told["refused"][what]
        own = said.partition(": ")[2] if said.startswith(f"rank {rank}: ") else said
        assert own in text.partition(": ")[2], text
        assert told["refused"].get(f"{what}: as it was", True)


@pytest.mark.slow
def test_a_rank_that_is_gone_is_an_error_of_the_others(ranks):
    assert ranks[0]["gone"].startswith("PrunekitError: another rank has ended")


def test_without_a_process_group_nothing_is_shared():
    with pytest.raises(InputError, match="there is no process group"):
        prunekit.prune(network(), X, data=prunekit.PerRank(samples()))
    with pytest.raises(InputError, match="for nothing else"):
        prunekit.compare(network(), ["wanda"], lambda model: 0.0, X, data=prunekit.PerRank(samples()))
    assert ALONE.all("a step", 3) == [3]
    assert ALONE.total([torch.ones(2)])[0].tolist() == [1, 1]
