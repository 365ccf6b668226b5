"""Experts of a mixture are units: found by what routing reads, removed exactly, never fewer than are chosen."""

import itertools
import random

import pytest
import torch
from support.mixtures import Mixture, Shape, masked_mixture

import prunekit
from prunekit.errors import ScorerError, SelectionError
from prunekit.inputs import as_samples
from prunekit.quantities.plan_cost import cost_after
from prunekit.scorers import Statistics

ROUTERS, BODIES = ("after", "softmax", "sigmoid"), ("picked", "all", "sorted", "looped")


def made(router="softmax", body="picked", seed=0, **sizes):
    torch.manual_seed(seed)
    return Mixture(Shape(**sizes), router, body).eval()


def of_experts(structure):
    return [group for group in structure.groups if group.role == "experts"]


def sizes_at_random(seed):
    dice = random.Random(seed)
    groups = dice.choice([1, 1, 2, 3])
    experts = groups * dice.randint(3, 5)
    chosen_groups = dice.randint(1, groups)
    top_k = dice.randint(1, chosen_groups * 2)
    hidden = 4 * dice.randint(1, 3)  # rows of whole 16 bytes, as the kernel for runs asks
    return {
        "width": 4 * dice.randint(1, 3),
        "experts": experts,
        "top_k": top_k,
        "hidden": hidden,
        "groups": groups,
        "chosen_groups": chosen_groups,
    }


@pytest.mark.parametrize(("router", "body"), list(itertools.product(ROUTERS, BODIES)))
def test_a_pruned_mixture_is_the_whole_one_that_never_chooses_what_went(router, body):
    """Law, over random shapes; with groups where the router is limited to some."""
    for seed in range(6):
        sizes = sizes_at_random(seed)
        model, x = made(router, body, seed, **sizes), torch.randn(2, 7, 5)
        before = model(x)
        structure = prunekit.trace(model, x)
        (group,) = of_experts(structure)
        limited = router == "sigmoid" and sizes["groups"] > 1
        each = sizes["groups"] if limited else 1
        assert group.size == sizes["experts"] // each
        assert {m.tensor for m in group.members} >= {"router.scores.weight", "experts.first", "experts.last"}
        if group.least == group.size:
            continue
        state = {name: value.clone() for name, value in model.state_dict().items()}
        reference = made(router, body, seed, **sizes)
        share = 1 - (group.size - 1) / group.size
        result = prunekit.prune(
            model,
            x,
            roles=["experts"],
            ratio=share,
            scorer=prunekit.Random(seed=seed),
            structure=structure,
            verify="full",
        )
        (width,) = result.plan.widths
        (unit,) = set(range(group.size)) - set(width.kept)
        member = next(m for m in group.members if m.tensor == "router.scores.bias")
        whole = masked_mixture(reference, member.coordinates(unit).tolist())
        assert len(model.experts.first) == sizes["experts"] - each == model.router.scores.out_features
        assert result.report.verify["symmetry_broken"] == []
        torch.testing.assert_close(model(x), whole(x), rtol=1e-5, atol=1e-5)
        other = torch.randn(3, 4, 5)
        torch.testing.assert_close(model(other), whole(other), rtol=1e-5, atol=1e-5)
        result.undo()
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert torch.equal(model(x), before)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("router", ["after", "sigmoid"])
def test_what_is_left_costs_what_was_foretold(router, body):
    model, x = made(router, body, width=8, experts=8), torch.randn(2, 7, 5)
    model.router.scores.bias = torch.nn.Parameter(torch.zeros(8)) if router == "after" else None
    structure = prunekit.trace(model, x)
    result = prunekit.prune(model, x, roles=["experts", "mlp.hidden"], ratio=0.34, scorer="random", align=4)
    assert cost_after(structure, result.plan) == prunekit.trace(model, x).cost()
    assert result.report.params["after"] == sum(p.numel() for p in model.parameters())


def test_hidden_widths_go_in_the_same_call():
    model, x = made(hidden=16), torch.randn(2, 7, 5)
    before = sum(p.numel() for p in model.experts.parameters())
    result = prunekit.prune(model, x, roles=["experts", "mlp.hidden"], ratio=0.5, scorer="random")
    assert model.experts.first.shape == (3, 6, 8)
    assert sum(p.numel() for p in model.experts.parameters()) < 0.3 * before
    assert {w.role for w in result.plan.widths} == {"experts", "mlp.hidden"}


def test_fewer_experts_than_are_chosen_are_refused_and_nothing_changes():
    model, x = made(top_k=3), torch.randn(2, 7, 5)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(SelectionError, match=r"2 of 6 units \(experts\) would be left, and forward chooses 3"):
        prunekit.prune(model, x, roles=["experts"], ratio=0.67, scorer="random")
    with pytest.raises(SelectionError, match=r"remove at most 0\.5"):
        prunekit.prune(model, x, ratio={"experts": 0.8, "*": 0.25}, scorer="random")
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert len(model.experts.first) == 6


def test_with_all_other_widths_as_many_experts_stay_as_are_chosen():
    model, x = made(top_k=3), torch.randn(2, 7, 5)
    prunekit.prune(model, x, ratio=0.75, scorer="random")
    assert len(model.experts.first) == 3
    assert model(x).shape == (2, 7, 3)


def test_a_target_that_takes_fewer_experts_than_are_chosen_is_out_of_reach():
    model, x = made(top_k=4), torch.randn(2, 7, 5)
    with pytest.raises(SelectionError, match="the target is out of reach"):
        prunekit.prune(model, x, roles=["experts"], target="params<=30%", scorer="random")
    prunekit.prune(model, x, roles=["experts"], target="params<=90%", scorer="random")
    assert len(model.experts.first) in (4, 5)


def test_groups_that_routing_is_limited_to_shrink_alike():
    model, x = made("sigmoid", experts=12, groups=3, chosen_groups=2, top_k=4), torch.randn(2, 7, 5)
    (group,) = of_experts(prunekit.trace(model, x))
    assert (group.size, group.least) == (4, 2)  # two groups of two hold the four that are chosen
    prunekit.prune(model, x, roles=["experts"], ratio=0.5, scorer="random")
    assert (model.router.num_experts, model.router.n_group) == (6, 3)


class Watched(Mixture):
    """Uses positions in another way as well."""

    def __init__(self, how):
        super().__init__(Shape(), "softmax", "picked")
        self.how = how
        self.table = torch.nn.Parameter(torch.randn(6, 6))

    def forward(self, x):
        y = self.front(x)
        at, gates = self.router(y)
        z = self.experts(y, at, gates)
        if self.how == "computed":
            z = z + 0.1 * at[:, :1]
        elif self.how == "told":
            return self.back(z), at
        elif self.how == "compared":
            z = torch.where(at[:, :1] == 5, z, -z)
        elif self.how == "read":
            z = z * int(at[0, 0].item())
        elif self.how == "listed":
            z = z * at[:, 0].tolist()[0]
        elif self.how == "looked up":
            z = z + torch.nn.functional.embedding(at[:, 0], self.table)
        return self.back(z)


@pytest.mark.parametrize("how", ["computed", "told", "compared", "read", "listed", "looked up"])
def test_positions_that_mean_more_than_an_expert_keep_all_of_them(how):
    torch.manual_seed(0)
    structure = prunekit.trace(Watched(how).eval(), torch.randn(9, 5))
    assert not of_experts(structure)
    assert any(frozen.name == "router.scores.weight:0" and frozen.reason for frozen in structure.frozen)


def by_hand(model, x):
    """Of every expert the mean of gate x norm over its tokens, and the share of tokens that it is sent."""
    y = model.front(x).flatten(0, -2)
    at, gates = model.router(y)
    hidden = (torch.einsum("td,edh->eth", y, model.experts.first) + model.experts.bias.unsqueeze(1)).relu()
    norms = (hidden @ model.experts.last).norm(dim=-1)
    found = []
    for expert, own in enumerate(norms):
        sent = (at == expert).any(1)
        gate = (gates * (at == expert)).sum(1)
        found.append((float((gate * own)[sent].mean()) if sent.any() else 0.0, float(sent.float().mean())))
    return torch.tensor(found, dtype=torch.float64).T


@pytest.mark.parametrize("body", BODIES)
def test_what_an_expert_adds_is_measured_however_it_is_computed(body):
    model, x = made("sigmoid", body, width=8), torch.randn(3, 9, 5)
    structure = prunekit.trace(model, x)
    (group,) = of_experts(structure)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    statistics = Statistics(model, list(as_samples([x], structure.inputs)), groups=structure.groups)
    with torch.no_grad():
        reap, share = by_hand(model, x)
    torch.testing.assert_close(prunekit.REAP().score(group, statistics), reap, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(prunekit.RoutedFrequency().score(group, statistics), share, rtol=1e-6, atol=1e-6)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_an_expert_that_fails_leaves_the_model_as_it_was():
    model, x = made(), torch.randn(2, 7, 5)
    with torch.no_grad():
        model.experts.last[2, 0, 0] = float("inf")
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ScorerError, match="is not finite"):
        prunekit.prune(model, x, roles=["experts"], ratio=0.25, scorer="reap", verify="shapes")
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_what_is_no_expert_is_scored_by_another_criterion_or_refused():
    model, x = made(hidden=16), torch.randn(2, 7, 5)
    with pytest.raises(ScorerError, match=r"REAP scores experts.*\n.*elsewhere"):
        prunekit.prune(model, x, ratio=0.25, scorer="reap")
    scorer = prunekit.REAP(elsewhere=prunekit.Magnitude())
    result = prunekit.prune(model, x, roles=["experts", "mlp.hidden"], ratio=0.5, scorer=scorer)
    assert {w.role for w in result.plan.widths} == {"experts", "mlp.hidden"}


@pytest.mark.parametrize("body", ["list, all", "list, hit"])
def test_experts_in_a_list_of_modules_stay_and_the_widths_inside_them_go(body):
    """Nobody knows yet how to take an entry out; that must be said, and nothing else may suffer."""
    model, x = made("softmax", body), torch.randn(2, 7, 5)
    structure = prunekit.trace(model, x)
    assert not of_experts(structure)
    (frozen,) = [f for f in structure.frozen if f.name == "router.scores.weight:0"]
    assert frozen.reason == "forward asks for this position" or "constant" in frozen.reason
    result = prunekit.prune(model, x, roles=["mlp.hidden"], ratio=0.5, scorer="random", structure=structure)
    assert model.experts.list[0][0].out_features == 4
    assert len(model.experts.list) == model.router.scores.out_features == 6
    assert result.report.verify["symmetry_broken"] == []
