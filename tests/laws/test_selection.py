"""Laws of selection: whatever the groups, scores and ratio, these hold."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.selecting import select

from prunekit.coupling.groups import Group, Member, Tie
from prunekit.scorers.normalisers import NORMALISERS

ROLES = ("embedding", "mlp.hidden", "attention.heads")
RATIOS = st.integers(0, 99).map(lambda n: n / 100)
RANKINGS = st.sampled_from(["local", "global", "role", "isomorphic"])
ROUNDINGS = st.sampled_from(["down", "nearest"])


@st.composite
def scored_groups(draw, roles=ROLES, coarse=True):
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    # Few distinct values make equal scores common.
    value = st.integers(0, 6) if coarse else st.integers(0, 10**6)
    groups, scores = [], {}
    for i, size in enumerate(sizes):
        name = f"g{i}.weight:0"
        member = Member(f"g{i}.weight", 0, torch.arange(size))
        groups.append(Group(name, draw(st.sampled_from(roles)), size, (member,)))
        scores[name] = torch.tensor(draw(st.lists(value, min_size=size, max_size=size)), dtype=torch.float64)
    return groups, scores


def exact_total(groups, ratio, rounding):
    total = sum(g.size for g in groups) * (1 - Fraction(repr(ratio)))
    return math.floor(total) if rounding == "down" else math.floor(total + Fraction(1, 2))


@given(scored_groups(), RATIOS, RANKINGS, ROUNDINGS, st.sampled_from([None, 1, 3, 8]), st.sampled_from([*NORMALISERS]))
@settings(max_examples=200, deadline=None)
def test_kept_units_are_valid_and_no_dropped_one_beats_a_kept_one(given, ratio, ranking, rounding, align, normaliser):
    groups, scores = given
    how = {"ratio": ratio, "ranking": ranking, "rounding": rounding, "align": align, "normaliser": normaliser}
    kept = select(groups, [], scores, **how)
    assert list(kept) == [g.name for g in groups]
    for g in groups:
        units = kept[g.name]
        assert units.dtype == torch.int64
        assert 1 <= len(units) <= g.size
        assert units.tolist() == sorted(set(units.tolist()))
        assert units.min() >= 0
        assert units.max() < g.size
        dropped = torch.ones(g.size, dtype=torch.bool).index_fill_(0, units, False)
        if dropped.any():
            assert scores[g.name][dropped].max() <= scores[g.name][units].min()
        step = 1 if align is None or g.role == "attention.heads" else align
        assert len(units) % step == 0 or len(units) == g.size
    again = select(groups, [], {name: s.clone() for name, s in scores.items()}, **how)
    assert all(torch.equal(kept[name], again[name]) for name in kept)


@given(scored_groups(), RATIOS, ROUNDINGS, st.floats(0, 0.3))
@settings(max_examples=200, deadline=None)
def test_a_pool_meets_its_total_exactly(given, ratio, rounding, floor):
    groups, scores = given
    kept = select(groups, [], scores, ratio=ratio, ranking="role", rounding=rounding, floor=floor, align=1)
    for role in ROLES:
        pool = [g for g in groups if g.role == role]
        total = sum(len(kept[g.name]) for g in pool)
        least = len(pool)  # every group keeps a unit
        assert total == max(least, exact_total(pool, ratio, rounding)) or (
            # A group too small for its share keeps one unit on top of the others' floors.
            total > exact_total(pool, ratio, rounding) and any(len(kept[g.name]) == 1 for g in pool)
        )


@given(scored_groups(roles=("channels",)), RATIOS, ROUNDINGS, st.sampled_from([2, 4, 8]))
@settings(max_examples=200, deadline=None)
def test_an_aligned_pool_is_at_most_one_step_off(given, ratio, rounding, align):
    groups, scores = given
    kept = select(groups, [], scores, ratio=ratio, ranking="global", rounding=rounding, align=align, floor=0.0)
    total = sum(len(k) for k in kept.values())
    least = sum(min(align, g.size) for g in groups)
    assert abs(total - max(least, exact_total(groups, ratio, rounding))) < align


@given(scored_groups(coarse=False), RATIOS, RATIOS, ROUNDINGS, st.sampled_from([1, 4]))
@settings(max_examples=200, deadline=None)
def test_more_ratio_keeps_a_subset(given, one, two, rounding, align):
    groups, scores = given
    low, high = sorted((one, two))
    for how in ({"ranking": "local"}, {"ranking": "global", "floor": 0.0}):
        wide, narrow = (select(groups, [], scores, ratio=r, rounding=rounding, align=align, **how) for r in (low, high))
        for name in wide:
            assert set(narrow[name].tolist()) <= set(wide[name].tolist())


@given(st.integers(1, 40), st.integers(2, 4), RATIOS, RANKINGS, ROUNDINGS, st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_tied_groups_keep_equal_counts(size, count, ratio, ranking, rounding, seed):
    generator = torch.Generator().manual_seed(seed)
    groups = [Group(f"g{i}:0", ROLES[i % 2], size, (Member(f"g{i}", 0, torch.arange(size)),)) for i in range(count + 1)]
    scores = {g.name: torch.rand(size, generator=generator) for g in groups}
    ties = [Tie((groups[i].name, groups[i + 1].name), "test") for i in range(count - 1)]
    kept = select(groups, ties, scores, ratio=ratio, ranking=ranking, rounding=rounding)
    assert len({len(kept[g.name]) for g in groups[:count]}) == 1


@given(scored_groups(), RATIOS, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_scores_of_one_group_do_not_matter_to_another_under_local_ranking(given, ratio, random):
    groups, scores = given
    kept = select(groups, [], scores, ratio=ratio)
    shuffled = {name: s[random.sample(range(len(s)), len(s))] for name, s in scores.items()}
    first = groups[0].name
    assert torch.equal(kept[first], select(groups, [], {**shuffled, first: scores[first]}, ratio=ratio)[first])
