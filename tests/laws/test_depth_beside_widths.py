"""Blocks and branches as variants beside widths: their cost is exact, their damage is that of the whole, no set is
taken that damages more than depth alone or widths alone."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch
from torch import nn

import prunekit
from prunekit.allocation.costing import Costs, Dropped, with_dropped
from prunekit.allocation.measuring import Meter
from prunekit.allocation.program import solved_program
from prunekit.allocation.sites import Site, Variant
from prunekit.inputs import Inputs
from prunekit.quantities.gauge import Gauge

LEFT_AT = (1.0, 0.5, 0.25)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.out((q @ k.transpose(-1, -2)).softmax(-1) @ v)
        return x + self.mlp(x)


def stack(seed: int, depth: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), *(Layer() for _ in range(depth)), nn.Linear(8, 5)).eval()


def data(seed: int = 0) -> list[torch.Tensor]:
    dice = torch.Generator().manual_seed(seed)
    return [torch.randn(1, 6, 4, generator=dice) for _ in range(4)]


def test_what_is_dropped_spares_what_it_holds_once():
    model, x = stack(0), data()[0]
    structure = prunekit.trace(model, x)
    gauge = Gauge.of(model, structure, "params<=50%, macs<=50%, memory<=50%")
    sites = []
    for group in (g for g in structure.groups if g.role == "mlp.hidden"):
        counts = [max(1, int(share * group.size)) for share in LEFT_AT]
        kept = [{group.name: torch.arange(count)} for count in counts]
        variants = tuple(Variant(units, None, share) for units, share in zip(kept, LEFT_AT, strict=True))
        sites.append(Site((group.name,), variants))
    depth = [(g, u) for g in structure.depth.groups for u in range(g.size)]
    assert len(depth) == 9
    alone = [{g.name: torch.tensor([v for v in range(g.size) if v != u])} for g, u in depth]
    places = [structure.depth.gone(kept) for kept in alone]
    drops = [Dropped(paths) for paths in places]
    costs = with_dropped(Costs.of(structure, sites, gauge), structure, sites, drops)
    sizes = [len(site.variants) for site in sites] + [2] * len(depth)
    for s, t in itertools.combinations(range(len(sizes)), 2):
        choice = [0] * len(sizes)
        choice[s], choice[t] = sizes[s] - 1, sizes[t] - 1
        kept = {name: units for n, site in enumerate(sites) for name, units in site.variants[choice[n]].kept.items()}
        gone = [unit for unit, taken in zip(depth, choice[len(sites) :], strict=True) if taken]
        for g in {g.name: g for g, _ in gone}.values():
            kept[g.name] = torch.tensor([u for u in range(g.size) if (g, u) not in gone], dtype=torch.int64)
        assert costs.of_choice(choice) == pytest.approx(gauge.exactly(kept))


def test_a_program_drops_no_more_than_may_go():
    costs = Costs({"macs": 30.0}, {"macs": [np.array([0.0, -10.0])] * 3}, {})
    damages = [np.array([0.0, damage]) for damage in (1.0, 2.0, 3.0)]
    solution = solved_program(damages, costs, {"macs": 11.0})
    assert solution is not None
    assert solution.choice == (1, 1, 0)
    solution = solved_program(damages, costs, {"macs": 11.0}, caps=[((0, 1), 1)])
    assert solution is not None
    assert solution.choice == (1, 0, 1)
    assert solved_program(damages, costs, {"macs": 11.0}, caps=[((0, 1), 1), ((2,), 0)]) is None


def test_what_precedes_what_goes_is_not_computed_again():
    model, samples = stack(1), data()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plans = [
        prunekit.plan(model, samples[0], roles=[role], ratio=0.34, include=include, scorer="random")
        for role, include in (
            ("depth.block", "2"),
            ("depth.block", "3"),
            ("depth.mlp", "3.*"),
            ("depth.attention", "2.*"),
        )
    ]
    how = prunekit.Measured(samples=4, batch=2)
    inputs = [Inputs((x,)) for x in samples]
    meter = Meter.of(model, how, inputs)
    found = meter.damages(plans)
    assert meter.reuses
    assert meter.bill.passes < len(plans) + 2  # one is measured twice, and the original
    whole = Meter.of(model, how, inputs)
    assert found == [whole.whole(plan) for plan in plans]
    assert len(set(found)) == len(plans)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize("seed", range(2))
def test_what_is_taken_damages_no_more_than_depth_alone_or_widths_alone(seed):
    model, samples = stack(seed), data(seed)
    with torch.no_grad():  # an attention and a block that hardly matter, and half of every hidden width
        for part in (model[1].out, model[3].out, model[3].mlp[3]):
            part.weight.mul_(1e-2)
            part.bias.mul_(1e-2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    how = prunekit.Measured(samples=4, widths=(0.5,), sets=2, rounds=0)
    asked = {"roles": ["depth.*", "mlp.hidden"], "target": "params<=70%", "allocation": how, "scorer": "wanda"}
    result = prunekit.prune(model, samples[0], data=samples, align=1, **asked)
    assert result.report.params["after"] == sum(p.numel() for p in model.parameters())
    assert result.report.params["after"] <= 0.7 * result.report.params["before"]
    told, program = result.report.notes[0], result.report.notes[1]
    assert "measured widths alone" in told
    assert "depth alone" in told
    assert "gap" in program
    wholes = [float(found) for found in re.findall(r"(?:^| )(\d[\d.e-]*)(?= \(|,|;)", told)]
    taken = re.search(r"are taken, of '.*?', which damages (\S+);", told)
    assert taken is not None
    assert float(taken[1]) == min(each for each in wholes if each < 1e9 and each != 0)
    result.undo()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
