"""Experts that are entries of a list: what is left is the model whose router never chooses what went."""

from __future__ import annotations

import copy
import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import prunekit
from prunekit.errors import NothingToPruneError, ScorerError, SelectionError
from prunekit.inputs import Inputs, as_samples
from prunekit.quantities.plan_cost import cost_after
from prunekit.scorers import Statistics

X = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
OTHER = torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(1))


class Expert(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return self.down(F.silu(self.up(x)))


class Mixture(nn.Module):
    """Routed in the ways in which people write it; ``banned`` are experts that the router is kept from choosing."""

    def __init__(self, dice: random.Random, width: int = 6) -> None:
        super().__init__()
        self.num_experts, self.top_k = dice.randint(4, 7), dice.randint(1, 2)
        self.way = dice.choice(["where", "all", "hit"])
        self.gates = dice.choice(["softmax", "after", "sigmoid"])
        self.router = nn.Linear(width, self.num_experts, bias=dice.random() < 0.5)
        if self.gates == "sigmoid":
            self.register_buffer("correction", 0.1 * torch.randn(self.num_experts))
        self.experts = nn.ModuleList(Expert(width, 8) for _ in range(self.num_experts))
        self.shared = Expert(width, 4) if dice.random() < 0.5 else None
        self.banned: list[int] = []

    def routed(self, x):
        logits = self.router(x)
        logits[:, self.banned] = -1e9
        if self.gates == "softmax":
            return torch.topk(logits.softmax(-1), self.top_k)
        if self.gates == "after":
            best, at = torch.topk(logits, self.top_k)
            return best.softmax(-1), at
        chances = logits.sigmoid()
        ranked = chances + self.correction
        ranked[:, self.banned] = -1e9
        at = torch.topk(ranked, self.top_k, sorted=False)[1]
        return chances.gather(1, at), at

    def forward(self, given):
        x = given.reshape(-1, given.shape[-1])
        gates, at = self.routed(x)
        out = torch.zeros_like(x) if self.shared is None else self.shared(x)
        if self.way == "all":
            for number, expert in enumerate(self.experts):
                out = out + ((at == number) * gates).sum(-1, keepdim=True) * expert(x)
            return out.reshape(given.shape)
        mask = F.one_hot(at, num_classes=self.num_experts).permute(2, 1, 0)
        hit = range(self.num_experts) if self.way == "where" else (mask.sum((-1, -2)) > 0).nonzero().flatten().tolist()
        for number in hit:
            place, row = torch.where(mask[number])
            out = out.index_add(0, row, self.experts[number](x[row]) * gates[row, place, None])
        return out.reshape(given.shape)


class Net(nn.Module):
    def __init__(self, seed: int, layers: int = 2) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.norms = nn.ModuleList(nn.LayerNorm(6) for _ in range(layers))
        self.mixtures = nn.ModuleList(Mixture(random.Random(seed)) for _ in range(layers))

    def forward(self, x):
        x = self.first(x)
        for norm, mixture in zip(self.norms, self.mixtures, strict=True):
            x = x + mixture(norm(x))
        return self.last(x)


def bits(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    now = model.state_dict()
    return list(now) == list(before) and all(torch.equal(now[name], before[name]) for name in before)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_left_never_chose_what_went(seed):
    model = Net(seed).eval()
    dense, before = copy.deepcopy(model), bits(model)
    result = prunekit.prune(model, X, roles=["depth.expert"], ratio=0.25, scorer=prunekit.Random(seed=seed))
    assert len(result.plan.removals) >= 1
    for width in result.plan.widths:
        mixture = dense.get_submodule(width.group.rpartition(".")[0])
        mixture.banned = sorted(set(range(width.before)) - set(width.kept))
        now = model.get_submodule(width.group.rpartition(".")[0])
        assert now.router.out_features == len(now.router.weight) == len(now.experts) == width.after
        if now.way == "where":  # where forward follows without it, a number stays
            assert now.num_experts == width.after
    assert result.report.params["after"] == sum(p.numel() for p in model.parameters())
    again = prunekit.Plan.from_json(result.plan.to_json())
    assert again == result.plan
    with torch.no_grad():
        for x in (X, OTHER):
            torch.testing.assert_close(model(x), dense(x), rtol=1e-5, atol=1e-6)
        for mixture in dense.mixtures:
            mixture.banned = []
        with prunekit.applied(dense, again):
            assert same(dense, bits(model))
    result.undo()
    assert same(model, before)


@pytest.mark.parametrize("seed", range(10))
def test_what_is_left_costs_what_was_foretold(seed):
    """Also where a list has as many experts as tokens have features, and hidden widths went before."""
    model = Net(seed).eval()
    prunekit.prune(model, X, roles=["mlp.hidden"], ratio=0.25, scorer="random")
    structure = prunekit.trace(model, X)
    result = prunekit.prune(model, X, roles=["depth.expert"], ratio=0.25, scorer=prunekit.Random(seed=seed))
    now = prunekit.trace(model, X).cost()
    assert cost_after(structure, result.plan) == now
    kept = {width.group: torch.tensor(width.kept) for width in result.plan.widths}
    assert structure.cost(kept) == now
    layers = structure.layers(kept).values()
    assert (sum(params for params, _ in layers), sum(macs for _, macs in layers)) == (now.params, now.macs)
    assert result.report.params["after"] == sum(p.numel() for p in model.parameters()) == now.params


@pytest.mark.parametrize("seed", [7, 13])
def test_what_is_left_of_experts_and_of_the_width_that_their_router_reads_costs_what_was_foretold(seed):
    model = Net(seed).eval()
    assert len(model.mixtures[0].experts) == model.first.out_features  # which of the router's axes is meant shows alone
    structure = prunekit.trace(model, X)
    plan = prunekit.prune(model, X, ratio={"depth.expert": 0.34, "embedding": 0.34}, scorer="random", align=1).plan
    kept = {width.group: torch.tensor(width.kept) for width in plan.widths}
    assert {width.role for width in plan.widths} == {"depth.expert", "embedding"}
    assert structure.cost(kept) == cost_after(structure, plan) == prunekit.trace(model, X).cost()


def test_fewer_than_are_chosen_is_refused_and_nothing_has_changed():
    model = Net(3).eval()
    before = bits(model)
    with pytest.raises(SelectionError, match="may go at most"):
        prunekit.prune(model, X, roles=["depth.expert"], ratio=0.95, scorer="random")
    with pytest.raises(ScorerError, match="no influence"):
        prunekit.prune(model, X, roles=["depth.expert"], ratio=0.25, scorer="block_influence", data=[X])
    assert same(model, before)


def test_the_expert_that_is_missed_least_goes_first_and_widths_go_with_it():
    model = Net(5).eval()
    experts = model.mixtures[1].experts
    with torch.no_grad():
        experts[2].down.weight.zero_()
        experts[2].down.bias.zero_()
        model.mixtures[1].router.weight[2] *= 1e-3
    count = sum(len(mixture.experts) for mixture in model.mixtures)
    plan = prunekit.plan(model, X, roles=["depth.expert"], ratio=1 / count, scorer="damage", data=[X, OTHER])
    assert len([path for removal in plan.removals for path in removal.gone]) == 1
    ratio = {"depth.expert": 0.25, "mlp.hidden": 0.5}
    result = prunekit.prune(model, X, ratio=ratio, scorer="random")
    assert {expert.up.out_features for mixture in model.mixtures for expert in mixture.experts} == {4}
    assert result.report.params["after"] == sum(p.numel() for p in model.parameters())


class Told(nn.Module):
    """A mixture, and for every token what each expert added to it and whether it was sent there, by its own count."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.mixture, self.added, self.sent = mixture, [], []

    def see(self, module, args, output):
        x = args[0].reshape(-1, args[0].shape[-1])
        gates, at = module.routed(x)
        gate = torch.stack([((at == number) * gates).sum(-1) for number in range(module.num_experts)])
        each = torch.stack([expert(x).norm(dim=-1) for expert in module.experts])
        self.added.append((gate * each).double())
        self.sent.append(torch.stack([(at == number).any(-1) for number in range(module.num_experts)]))


@pytest.mark.parametrize("seed", range(6))
def test_what_an_expert_adds_and_how_often_it_is_asked_are_what_its_router_says(seed):
    model = Net(seed).eval()
    before, seen = bits(model), [Told(mixture) for mixture in model.mixtures]
    with torch.no_grad():
        hooks = [each.mixture.register_forward_hook(each.see) for each in seen]
        for x in (X, OTHER):
            model(x)
        for hook in hooks:
            hook.remove()
    found = prunekit.trace(model, X).depth.groups
    groups = [group for group in found if group.role == "depth.expert"]
    samples = list(as_samples([X, OTHER], Inputs((X,))))
    statistics = Statistics(model, samples, groups=groups)
    assert len(groups) == len(seen)
    for group, told in zip(groups, seen, strict=True):
        added, sent = torch.cat(told.added, 1), torch.cat(told.sent, 1)
        want = added.sum(1) / sent.sum(1).clamp(min=1)
        torch.testing.assert_close(prunekit.REAP().score(group, statistics), want, rtol=1e-4, atol=1e-6)
        share = sent.sum(1).double() / sent.shape[1]
        torch.testing.assert_close(prunekit.RoutedFrequency().score(group, statistics), share)
    assert same(model, before)


@pytest.mark.parametrize("scorer", ["reap", "routed_frequency"])
def test_the_expert_to_which_no_token_is_sent_goes_first_and_nothing_changes(scorer):
    model = Net(3).eval()
    with torch.no_grad():
        for mixture, unit in zip(model.mixtures, (1, 0), strict=True):
            mixture.router.weight[unit] = 0
            mixture.router.bias = nn.Parameter(torch.zeros(mixture.num_experts))
            mixture.router.bias[unit] = -1e6
    with torch.no_grad():
        want = model(OTHER)
    count = sum(len(mixture.experts) for mixture in model.mixtures)
    result = prunekit.prune(model, X, roles=["depth.expert"], ratio=2 / count, scorer=scorer, data=[X, OTHER])
    gone = [path for removal in result.plan.removals for path in removal.gone]
    assert gone == ["mixtures.0.experts.1", "mixtures.1.experts.0"]
    with torch.no_grad():
        torch.testing.assert_close(model(OTHER), want)
    both = {"depth.expert": 0.25, "mlp.hidden": 0.5}
    with pytest.raises(ScorerError, match="these units are none"):
        prunekit.prune(model, X, ratio=both, scorer=scorer, data=[X])
    kind = {"reap": prunekit.REAP, "routed_frequency": prunekit.RoutedFrequency}[scorer]
    prunekit.prune(model, X, ratio=both, scorer=kind(elsewhere=prunekit.Wanda()), data=[X, OTHER], align=1)
    assert {expert.up.out_features for mixture in model.mixtures for expert in mixture.experts} == {4}


def test_beside_blocks_a_criterion_of_experts_is_refused():
    with pytest.raises(ScorerError, match="says nothing of whole blocks"):
        prunekit.plan(Net(0).eval(), X, roles=["depth.*"], ratio=0.25, scorer="reap", data=[X])


def test_what_cannot_be_followed_says_why():
    model = Net(1).eval()
    for mixture in model.mixtures:
        mixture.other = nn.Linear(6, mixture.num_experts)
        mixture.register_forward_hook(lambda module, given, made: made + module.other(given[0]).mean())
    with pytest.raises(NothingToPruneError, match="each have one row for each of its entries"):
        prunekit.plan(model, X, roles=["depth.expert"], ratio=0.25, scorer="random")


@pytest.mark.parametrize("seed", [1, 2])  # few experts, chosen in two ways
def test_experts_blocks_branches_and_widths_share_one_target(seed):
    model = Net(seed).eval()
    before = bits(model)
    how = prunekit.Measured(samples=2, sets=2, rounds=0, widths=(0.5,))
    asked = {"roles": ["depth.*", "mlp.hidden"], "target": "params<=60%", "allocation": how, "scorer": "wanda"}
    result = prunekit.prune(model, X, data=[X, OTHER], align=1, **asked)
    params = result.report.params
    assert params["after"] == sum(p.numel() for p in model.parameters()) <= 0.6 * params["before"]
    assert result.plan.removals
    assert result.plan.cuts
    assert "program 1" in result.report.notes[0]
    result.undo()
    assert same(model, before)
