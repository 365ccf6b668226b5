"""Laws of measured allocation: random networks, and programs small enough to try every choice."""

from __future__ import annotations

import itertools
import math
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.compare import differences, snapshot
from support.networks import build
from support.selecting import conditions

import prunekit
from prunekit.allocation.costing import Costs
from prunekit.allocation.measuring import Meter
from prunekit.allocation.program import GAP, solved_program
from prunekit.allocation.sites import kept_by
from prunekit.errors import BudgetError, NothingToPruneError, SelectionError
from prunekit.inputs import generated, normalise
from prunekit.planning.candidates import choose
from prunekit.planning.settling import planned
from prunekit.planning.variants import Attainable, sites_of
from prunekit.quantities.gauge import Gauge
from prunekit.surgery.cutting import applied

EXAMPLES = int(os.environ.get("PRUNEKIT_LAW_EXAMPLES", "4"))
SEEDS = st.integers(0, 10**6)
FAST = {"samples": 2, "sets": 2, "widths": (0.5, 0.25), "damage": "mse"}


@given(SEEDS, st.sampled_from(["params<=70%", "macs<=60%", "params<=80%, macs<=75%"]))
@settings(max_examples=EXAMPLES, deadline=None)
def test_the_target_is_kept_and_a_refused_model_is_untouched(seed, target):
    model, inputs = build(seed)
    before = snapshot(model)
    how = prunekit.Measured(**FAST)
    try:
        result = prunekit.prune(model, inputs, target=target, allocation=how, scorer="magnitude", verify="shapes")
    except (SelectionError, NothingToPruneError):
        assert not differences(before, snapshot(model))
        return
    for limit in target.split(","):
        name, most = limit.strip().split("<=")
        counts = getattr(result.report, name)
        assert counts["after"] <= counts["before"] * float(most.rstrip("%")) / 100
    result.undo()
    assert not differences(before, snapshot(model))


def made_sites(seed, shares=(0.5, 0.25)):
    model, inputs = build(seed)
    structure = prunekit.trace(model, inputs)
    groups = choose(structure)
    scores = {g.name: torch.arange(g.size, dtype=torch.float64) for g in groups}
    widths = Attainable.of(structure, groups, scores, conditions())

    def make(kept):
        try:
            return planned(model, structure, dict(kept), None)[0]
        except prunekit.PrunekitError:
            return None

    return model, structure, sites_of(widths, shares, make)


@given(SEEDS)
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_pass_from_recorded_outputs_gives_the_damage_of_a_whole_pass(seed):
    model, structure, sites = made_sites(seed)
    plans = [v.plan for site in sites for v in site.variants if v.plan is not None]
    if not plans:
        return
    samples = generated(structure.inputs, 2)
    before = snapshot(model)
    quick = Meter.of(model, prunekit.Measured(**FAST), samples)
    plain = Meter.of(model, prunekit.Measured(**FAST), samples)
    plain.reuses = False
    assert quick.damages(plans) == plain.damages(plans)
    base = plans[len(plans) // 2]
    near = Meter.of(model, prunekit.Measured(**FAST), samples)
    assert near.damages(plans, base) == plain.damages(plans)
    assert not differences(before, snapshot(model))


def _widths_in(structure, term):
    """How many axes that can shrink a term multiplies."""
    axes = [structure.coupler.axes[ref.id][k] for ref, k in term.axes if structure.coupler.axes.get(ref.id)]
    return sum(axis is not None for axis in axes)


@given(SEEDS)
@settings(max_examples=EXAMPLES, deadline=None)
def test_costs_of_pairs_are_the_true_cost(seed):
    model, structure, sites = made_sites(seed)
    gauge = Gauge.of(model, structure, "params<=50%, macs<=50%")
    costs = Costs.of(structure, sites, gauge)
    generator = np.random.default_rng(seed)
    cubic = any(len(term.axes) > 2 and _widths_in(structure, term) > 2 for term in structure.terms)
    for _ in range(5):
        choice = [int(generator.integers(len(site.variants))) for site in sites]
        told, true = costs.of_choice(choice), gauge.exactly(kept_by(sites, choice))
        for name in () if cubic else true:
            assert math.isclose(told[name], true[name], rel_tol=1e-9)
    alone = [0] * len(sites)
    assert costs.of_choice(alone) == gauge.exactly({})


@given(SEEDS, st.sampled_from([(5, 5), (8, 3)]))
@settings(max_examples=16, deadline=None)
def test_the_program_is_as_good_as_trying_every_choice(seed, shape):
    generator = np.random.default_rng(seed)
    sites, most = shape
    sizes = [int(generator.integers(2, most)) for _ in range(sites)]
    damages = [np.sort(generator.exponential(size=n)) - 0.0 for n in sizes]
    single = [-np.sort(generator.uniform(0, 20, size=n)) for n in sizes]
    ends = [(s, s + 1) for s in range(4)] if sites == 5 else [(min(s, 3), max(s, 3)) for s in range(8) if s != 3]
    pairs = {(s, t): {"params": generator.uniform(0, 5, size=(sizes[s], sizes[t]))} for s, t in ends}
    costs = Costs({"params": 100.0}, {"params": single}, pairs)
    limits = {"params": float(generator.uniform(50, 110))}

    def damage(choice):
        return sum(d[v] for d, v in zip(damages, choice, strict=True))

    fitting = [
        c for c in itertools.product(*map(range, sizes)) if costs.of_choice(c)["params"] <= limits["params"] + 1e-9
    ]
    found = solved_program(damages, costs, limits)
    assert (found is None) == (not fitting)
    if found is None:
        return
    best = min(map(damage, fitting))
    assert found.choice in fitting
    assert best - 1e-9 <= found.damage <= best * (1 + 2 * GAP) + 1e-9
    assert found.bound <= best + 1e-6
    apart = 2
    other = solved_program(damages, costs, limits, without=[found.choice], apart=apart)
    far = [c for c in fitting if sum(a != b for a, b in zip(c, found.choice, strict=True)) >= apart]
    assert (other is None) == (not far)
    if other is not None:
        assert sum(a != b for a, b in zip(other.choice, found.choice, strict=True)) >= apart


def test_a_narrower_variant_is_what_the_smaller_model_gives():
    model, structure, sites = made_sites(3)
    how = prunekit.Measured(**FAST)
    samples = generated(structure.inputs, 1)
    plans = [v.plan for site in sites for v in site.variants if v.plan is not None]
    for plan, damage in zip(plans, Meter.of(model, how, samples).damages(plans), strict=True):
        (inputs,) = samples
        with torch.no_grad():
            y = model(*normalise(inputs).args)
            with applied(model, plan):
                z = model(*normalise(inputs).args)
        assert math.isclose(damage, float((z - y).double().square().sum() / y.double().square().sum()), rel_tol=1e-6)


@pytest.mark.parametrize("allocation", ["measured", "ranked"])
def test_a_budget_that_nothing_meets_names_the_best_set(allocation):
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 64))
    x = torch.randn(2, 8)
    before = snapshot(model)
    with pytest.raises(BudgetError) as caught:
        prunekit.prune(model, x, target="params<=5%", allocation=allocation, scorer="magnitude")
    assert caught.value.kept.keys() == {"0.weight:0"}
    assert len(caught.value.kept["0.weight:0"]) == 1
    assert caught.value.reached == {"params": 8 + 1 + 64 + 64}
    assert not differences(before, snapshot(model))


@pytest.mark.parametrize("shape", ["chain", "star"])
def test_two_hundred_sites_are_solved_within_the_gap(shape):
    generator = np.random.default_rng(0)
    shares = np.array([1, 0.875, 0.75, 0.625, 0.5, 0.25])
    sites, count = 200, len(shares)
    size = generator.choice([64, 128, 256, 512], sites)
    ends = [(s, s + 1) if shape == "chain" else (0, s + 1) for s in range(sites - 1)]
    whole = float(sum(size[s] * size[t] for s, t in ends))
    single = [np.zeros(count) for _ in range(sites)]
    pairs = {}
    for s, t in ends:
        cells = np.outer(shares, shares) * float(size[s] * size[t])
        alone, other = cells[:, 0] - cells[0, 0], cells[0] - cells[0, 0]
        single[s] = single[s] + alone
        single[t] = single[t] + other
        pairs[s, t] = {"macs": cells - cells[0, 0] - alone[:, None] - other[None]}
    costs = Costs({"macs": whole}, {"macs": single}, pairs)
    damages = [np.sort(generator.gamma(1, 1, count)) * np.arange(count) for _ in range(sites)]
    limits = {"macs": 0.6 * whole}
    found = solved_program(damages, costs, limits)
    assert found is not None
    assert costs.of_choice(found.choice)["macs"] <= limits["macs"] * (1 + 1e-6)
    assert found.gap <= 2 * GAP
