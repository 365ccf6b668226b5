"""Affine maps as variants of what is dropped within a target: their cost is exact, and no set is worse for them."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
from torch import nn

import prunekit
from prunekit.allocation.costing import Costs, Dropped, with_dropped
from prunekit.allocation.sites import Site, Variant
from prunekit.coupling.cost import measure_ops
from prunekit.options import Options
from prunekit.planning.depth_search import DepthSearch
from prunekit.quantities.gauge import Gauge, fields_of
from prunekit.quantities.plan_cost import map_terms
from prunekit.roles import DEPTH
from prunekit.surgery import mapping

LEFT_AT = (1.0, 0.5)
HOW = prunekit.Measured(samples=4, widths=(0.5,), sets=1, rounds=0)
ASKED = {"roles": ["depth.*", "mlp.hidden"], "allocation": HOW, "scorer": "wanda", "align": 1}


class Layer(nn.Module):
    """An attention and a wide MLP, which is affine where ``bends`` is false."""

    def __init__(self, bends: bool) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(8), Attention()
        self.mlp = nn.Sequential(nn.Linear(8, 64), nn.GELU() if bends else nn.Identity(), nn.Linear(64, 8))

    def forward(self, x):
        x = x + self.attention(self.norm(x))
        return x + self.mlp(x)


class Attention(nn.Module):
    """One head."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out((q @ k.transpose(-1, -2)).softmax(-1) @ v)


def stack(seed: int = 0, bends: bool = True, depth: int = 2) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), *(Layer(bends) for _ in range(depth)), nn.Linear(8, 5)).eval()


def data(seed: int = 0) -> list[torch.Tensor]:
    dice = torch.Generator().manual_seed(seed)
    return [torch.randn(1, 6, 4, generator=dice) for _ in range(12)]


def found(model, *, maps=True):
    structure = prunekit.trace(model, data()[0])
    options = Options.of(roles=list(DEPTH), scorer="random", target="params<=50%")
    return DepthSearch.of(model, structure, options, data=None, progress=None, maps=maps)


def test_what_a_map_costs_beside_widths_and_beside_what_else_goes_is_exact():
    search = found(stack())
    structure = search.structure
    gauge = Gauge.of(search.model, structure, "params<=50%, macs<=50%, memory<=50%")
    sites = []
    for group in (g for g in structure.groups if g.role in ("mlp.hidden", "embedding")):
        kept = [{group.name: torch.arange(int(share * group.size))} for share in LEFT_AT]
        sites.append(Site((group.name,), tuple(Variant(u, None, s) for u, s in zip(kept, LEFT_AT, strict=True))))
    assert any(site.name == "0.weight:0" for site in sites)
    depth = [unit for unit, _ in search.alone()]
    plans = [search.choice.with_map(unit) for unit in depth]
    assert len(depth) == 6
    maps = [map_terms(structure, next(a for a in plan.absences if a.has_map)) for plan in plans]
    places = [structure.depth.gone(search.choice.kept([unit])) for unit in depth]
    drops = [Dropped(paths, terms) for paths, terms in zip(places, maps, strict=True)]
    costs = with_dropped(Costs.of(structure, sites, gauge), structure, sites, drops)
    sizes = [2] * len(sites) + [3] * len(depth)
    for s, t in itertools.combinations(range(len(sizes)), 2):
        for u, v in itertools.product(range(1, sizes[s]), range(1, sizes[t])):
            choice = [0] * len(sizes)
            choice[s], choice[t] = u, v
            kept = {n: x for i, site in enumerate(sites) for n, x in site.variants[choice[i]].kept.items()}
            taken = dict(zip(depth, choice[len(sites) :], strict=True))
            gone = search.choice.cover.outermost([unit for unit in depth if taken[unit]])
            stand = tuple(
                x for unit, terms in zip(depth, maps, strict=True) if unit in gone for x in terms if taken[unit] > 1
            )
            want = gauge.exactly({**kept, **search.choice.kept(gone)})
            more = fields_of(measure_ops(stand, structure.shapes(kept)))
            assert costs.of_choice(choice) == pytest.approx({q: want[q] + more[q] for q in want}), (s, t, u, v)


def test_what_is_affine_is_replaced_and_nothing_is_lost():
    model = stack(bends=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(5))
    want = model(x).detach()
    result = prunekit.prune(model, data()[0], data=data(), target="params<=45%", replace="affine", **ASKED)
    counted = sum(p.numel() for p in model.parameters())
    assert result.report.params["after"] == counted <= 0.45 * result.report.params["before"]
    assert sum(absence.has_map for absence in result.plan.absences) >= 2
    assert (model(x) - want).square().sum() < 1e-3 * want.square().sum()
    assert result.plan.explain().count("by one linear layer, an affine map of 8 features") >= 2
    assert prunekit.Plan.from_json(result.plan.to_json()) == result.plan
    result.undo()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize("seed", range(2))
def test_on_what_is_measured_a_call_with_maps_is_never_worse_than_one_without(seed):
    damage, told = {}, {}
    for how in (None, "affine"):
        model = stack(seed)
        result = prunekit.prune(model, data()[0], data=data(seed), target="params<=60%", replace=how, **ASKED)
        told[how] = result.report.notes
        taken = re.search(r"which damages (\S+);", told[how][0])
        damage[how] = float(taken[1])
        if how is None:
            assert not any(absence.has_map for absence in result.plan.absences)
    assert damage["affine"] <= damage[None]
    assert told[None][1] in told["affine"]  # what is proposed without is proposed with, too
    assert "a map in the place of 6" in " ".join(told["affine"])
    assert "a map in the place of" not in " ".join(told[None])


@pytest.mark.parametrize("role", ["depth.block", "depth.mlp"])
def test_a_map_is_fitted_in_what_is_left_when_other_units_go(role):
    model, samples = stack(), data()
    search = found(model)
    group = next(g for g in search.choice.groups if g.role == role)
    first = next(g for g in search.choice.groups if g.role == "depth.block")
    both = [(first.name, 0), (group.name, 1)]
    deep = search.without(both, [both[1]])
    assert deep is not None
    with prunekit.applied(model, deep.plan, samples):
        (once,) = [p.clone() for n, p in model.named_parameters() if n.endswith("affine_map.weight")]
    with prunekit.applied(model, search.without(both[:1]).plan):
        left = found(model)
        again = next(g for g in left.choice.groups if g.role == role)
        with prunekit.applied(model, left.choice.with_map((again.name, 0)), samples):
            (twice,) = [p.clone() for n, p in model.named_parameters() if n.endswith("affine_map.weight")]
    torch.testing.assert_close(once, twice)


@pytest.mark.parametrize("how", [None, "affine"])
def test_a_front_counts_what_is_left_when_depth_went_and_maps_stand_there(how):
    model = stack(bends=False)
    with torch.no_grad():  # nothing of the first layer is missed
        for part in (model[1].mlp[2], model[1].attention.out):
            part.weight.zero_()
            part.bias.zero_()
    front = prunekit.pareto(model, ["params<=60%"], data()[0], data=data(), replace=how, **ASKED)
    (point,) = front.points
    assert point.plan.removals or point.plan.absences
    with prunekit.applied(model, point.plan, data()):
        assert point.cost.params == sum(p.numel() for p in model.parameters()) <= 0.6 * front.original.params


def test_what_damage_is_measured_on_no_map_was_fitted_to(monkeypatch):
    seen, plain = [], mapping.fitted_map

    def noted(model, absence, samples, put_in):
        seen.append([sample.args[0] for sample in samples])
        return plain(model, absence, samples, put_in)

    monkeypatch.setattr(mapping, "fitted_map", noted)
    samples = data()
    prunekit.plan(stack(depth=1), samples[0], data=samples, target="params<=60%", replace="affine", **ASKED)
    others = samples[HOW.samples :]
    assert seen
    assert all(len(each) == len(others) and all(map(torch.equal, each, others)) for each in seen)
