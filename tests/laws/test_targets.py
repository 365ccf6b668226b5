"""Laws of targets: whatever the network and the limit, what is promised is what is measured, and no more would fit."""

from __future__ import annotations

import copy
import os

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.compare import differences, distance, measured, run, snapshot
from support.networks import build
from support.selecting import conditions

import prunekit
from prunekit.coupling.groups import Group, Member, Tie
from prunekit.errors import NothingToPruneError, SelectionError
from prunekit.quantities.counted_cost import CountedCost
from prunekit.quantities.gauge import fields_of
from prunekit.selection import select_within
from prunekit.selection.ranking import counts_of

EXAMPLES = int(os.environ.get("PRUNEKIT_LAW_EXAMPLES", "25"))
SEEDS = st.integers(0, 10**6)
RANKINGS = st.sampled_from(["local", "global", "role", "isomorphic"])


def bytes_of(model):
    tensors = {t.data_ptr() or id(t): t for t in [*model.parameters(), *model.buffers()]}
    return sum(t.numel() * t.element_size() for t in tensors.values())


@given(SEEDS, st.sampled_from(["params", "macs", "memory"]), st.integers(30, 95), RANKINGS)
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_target_is_kept_and_what_is_predicted_is_measured(seed, quantity, percent, ranking):
    model, inputs = build(seed)
    before = snapshot(model)
    structure = prunekit.trace(model, inputs)
    whole = fields_of(structure.cost())[quantity]
    try:
        result = prunekit.prune(
            model, inputs, target=f"{quantity}<={percent}%", ranking=ranking, structure=structure, verify="shapes"
        )
    except (SelectionError, NothingToPruneError):
        assert not differences(before, snapshot(model))
        return
    report = result.report
    assert getattr(report, quantity)["after"] <= whole * percent / 100
    params, macs = measured(model, inputs)
    assert (params, macs) == (report.params["after"], report.macs["after"])
    assert bytes_of(model) == report.memory["after"]
    result.undo()
    assert not differences(before, snapshot(model))


@given(SEEDS, st.randoms(use_true_random=False))
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_cost_from_counts_is_the_cost_of_the_units(seed, random):
    model, inputs = build(seed)
    structure = prunekit.trace(model, inputs)
    counted = CountedCost(structure)
    assume(counted.exact)
    counts = {group.name: random.randint(1, group.size) for group in structure.groups}
    kept = {g.name: torch.tensor(sorted(random.sample(range(g.size), counts[g.name]))) for g in structure.groups}
    assert fields_of(counted(counts)) == fields_of(structure.cost(kept))


@st.composite
def budgets(draw):
    sizes = draw(st.lists(st.integers(1, 30), min_size=1, max_size=6))
    prices = draw(st.lists(st.integers(1, 50), min_size=len(sizes), max_size=len(sizes)))
    seed = draw(SEEDS)
    generator = torch.Generator().manual_seed(seed)
    groups = [
        Group(f"g{i}:0", ("channels", "mlp.hidden")[i % 2], size, (Member(f"g{i}", 0, torch.arange(size)),))
        for i, size in enumerate(sizes)
    ]
    scores = {g.name: torch.rand(g.size, generator=generator) for g in groups}
    ties = [Tie(("g0:0", "g1:0"), "test")] if len(sizes) > 1 and sizes[0] == sizes[1] else []
    total = sum(s * p for s, p in zip(sizes, prices, strict=True))
    return groups, ties, scores, dict(zip(scores, prices, strict=True)), draw(st.integers(0, total))


@given(budgets(), RANKINGS, st.sampled_from([None, 1, 4]), st.sampled_from([(0.0, 1.0), (0.2, 0.6)]))
@settings(max_examples=5 * EXAMPLES, deadline=None)
def test_no_single_step_more_would_fit(given_budget, ranking, align, bounds):
    groups, ties, scores, price, most = given_budget
    how = conditions(ranking=ranking, align=align, min_ratio=bounds[0], max_ratio=bounds[1] if bounds[1] < 1 else None)

    def fits(counts):
        return sum(price[name] * count for name, count in counts.items()) <= most

    now = {group.name: group.size for group in groups}

    def takes(counts):
        fitting = fits(now | counts)
        now.update(counts if fitting else {})
        return fitting

    kept, allocations = select_within(groups, ties, scores, takes, how)
    counts = {name: len(units) for name, units in kept.items()}
    now = [counts[a.groups[0]] // a.multiples[0] for a in allocations]
    assert all(width in a.allowed for a, width in zip(allocations, now, strict=True))
    if not fits(counts):
        assert now == [a.allowed[0] for a in allocations]
        return
    for i, a in enumerate(allocations):
        wider = next((w for w in a.allowed if w > now[i]), None)
        if wider is not None:
            assert not fits({**counts, **counts_of([a], [wider])})


@given(SEEDS, st.integers(1, 5), st.sampled_from(["linear", "cubic"]), st.sampled_from([0.3, 0.5, 0.7]))
@settings(max_examples=EXAMPLES // 2, deadline=None)
def test_several_steps_are_one_plan_and_can_be_taken_back(seed, steps, schedule, ratio):
    model, inputs = build(seed)
    before = snapshot(model)
    again = copy.deepcopy(model)
    try:
        several = prunekit.prune(model, inputs, ratio=ratio, steps=steps, schedule=schedule, verify="shapes")
    except NothingToPruneError:
        return
    prunekit.apply(again, several.plan)
    assert distance(run(model, inputs), run(again, inputs)) < 1e-9
    assert measured(model, inputs) == (several.report.params["after"], several.report.macs["after"])
    several.undo()
    assert not differences(before, snapshot(model))
