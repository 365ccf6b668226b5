"""Means and sums over ranks are those over all samples: plans alone would not tell, since a factor moves no rank."""

from __future__ import annotations

import pytest
import torch

from prunekit.inputs.per_rank import ALONE, Alone
from prunekit.scorers.contributions import Contributions
from prunekit.scorers.over_ranks import mean_of_numbers, mean_of_tensors, sum_of_contributions


class Other(Alone):
    """Two ranks, of which the other one brings the tensors that are given."""

    size = 2

    def __init__(self, *brought):
        self.brought = brought

    def total(self, values):
        return [mine + theirs for mine, theirs in zip(values, self.brought, strict=True)]


DRAWN = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mine", [0, 1, 4, 5])
def test_a_mean_counts_every_sample_once(mine):
    own, theirs = DRAWN[:mine], DRAWN[mine:]
    ranks = Other(theirs.double().sum(0))
    of_own = own.mean(0) if mine else torch.zeros(3)
    found = mean_of_tensors({"a": of_own}, mine, 5, ranks)
    torch.testing.assert_close(found, {"a": DRAWN.mean(0)})
    numbers = mean_of_numbers(of_own.tolist(), mine, 5, ranks)
    assert numbers == pytest.approx(DRAWN.mean(0).tolist(), rel=1e-5)


def test_what_experts_add_is_summed_with_its_tokens():
    own = Contributions(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), 7)
    ranks = Other(torch.tensor([10.0, 20.0]), torch.tensor([30.0, 40.0]), torch.tensor([70.0]))
    found = sum_of_contributions({"experts": own}, ranks)["experts"]
    assert (found.norms.tolist(), found.tokens.tolist(), found.total) == ([11.0, 22.0], [33.0, 44.0], 77)


def test_one_rank_has_what_it_brings():
    held = {"a": DRAWN}
    assert mean_of_tensors(held, 5, 5, ALONE)["a"] is DRAWN
    own = Contributions.none(2)
    assert sum_of_contributions({"experts": own}, ALONE)["experts"] is own
