"""Whole blocks that go: the model without them is the model with them passed by, undo is to the bit, plans are one."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import nn

import prunekit
from prunekit.errors import InputError, NothingToPruneError, PlanError, ScorerError, SelectionError
from prunekit.modules.bypassing import bypassed

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """Pre-norm residual block; ``style`` says how it takes and gives its stream."""

    def __init__(self, width: int, hidden: int, style: str, index: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.style, self.layer_idx = style, index

    def forward(self, x, scale=None):
        y = self.down(torch.relu(self.up(self.norm(x))))
        if scale is not None:
            y = y * scale
        if self.style == "in-place":
            x += y
            return x
        if self.style == "post-norm":
            return self.norm(x + y)
        return (x + y, y.mean()) if self.style == "tuple" else x + y


class Net(nn.Module):
    """A stack of blocks that is counted, indexed or zipped with per-layer values."""

    def __init__(self, depth: int, style: str, how: str, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        blocks = [Block(8, hidden, style, index) for index in range(depth)]
        self.blocks = nn.Sequential(*blocks) if how == "sequential" else nn.ModuleList(blocks)
        self.how, self.depth = how, depth
        self.scales = [1.0 + 0.5 * index for index in range(depth)]
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x)
        if self.how == "sequential" and self.blocks[0].style != "tuple":
            return self.last(self.blocks(x))
        scales = self.scales if self.how in ("zipped", "indexed") else [None] * self.depth
        if self.how == "counted":
            for index in range(self.depth):
                x = self._one(self.blocks[index], x, None)
        elif self.how == "indexed":
            for block in self.blocks:
                x = self._one(block, x, scales[block.layer_idx])
        else:
            for block, scale in zip(self.blocks, scales, strict=False):
                x = self._one(block, x, scale)
        return self.last(x)

    @staticmethod
    def _one(block, x, scale):
        made = block(x, scale=scale)
        return made[0] if isinstance(made, tuple) else made


def drawn(seed: int) -> Net:
    dice = random.Random(seed)
    torch.manual_seed(seed)
    style = dice.choice(["plain", "tuple", "in-place", "post-norm"])
    how = dice.choice(["listed", "sequential", "zipped", "indexed", "counted"])
    return Net(dice.randint(3, 6), style, how, dice.choice([4, 12])).eval()


def bits(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    now = model.state_dict()
    return list(now) == list(before) and all(torch.equal(now[name], before[name]) for name in before)


@pytest.mark.parametrize("seed", range(24))
def test_without_blocks_is_with_blocks_passed_by(seed):
    model = drawn(seed)
    dense, before, lists = copy.deepcopy(model), bits(model), (model.scales, model.depth)
    result = prunekit.prune(model, X, roles=["depth.block"], ratio=0.5, scorer=prunekit.Random(seed=seed))
    (removal,) = result.plan.removals
    assert 1 <= len(removal.gone) < dense.depth
    with torch.no_grad(), bypassed(dense, removal.gone):
        wanted = dense(X.clone())
    with torch.no_grad():
        assert torch.equal(model(X.clone()), wanted)
    fresh = Net(len(removal.kept), dense.blocks[0].style, dense.how, dense.blocks[0].up.out_features)
    assert list(model.state_dict()) == list(fresh.state_dict())
    assert [block.layer_idx for block in model.blocks] == list(range(len(removal.kept)))
    assert result.report.params["after"] == sum(p.numel() for p in model.parameters())
    again = prunekit.Plan.from_json(result.plan.to_json())
    assert again == result.plan
    with prunekit.applied(dense, again), torch.no_grad():
        assert torch.equal(dense(X.clone()), wanted)
    result.undo()
    assert same(model, before)
    assert (model.scales, model.depth) == lists
    with torch.no_grad():
        assert torch.equal(model(X.clone()), dense(X.clone()))


@pytest.mark.parametrize("seed", range(6))
def test_blocks_and_widths_are_one_plan(seed):
    model = drawn(seed)
    other, before = copy.deepcopy(model), bits(model)
    asked = {"ratio": {"depth.block": 0.4, "mlp.hidden": 0.5}, "scorer": prunekit.Random(seed=1)}
    drafted = prunekit.plan(model, X, **asked)
    assert same(model, before)
    result = prunekit.prune(model, X, **asked)
    prunekit.apply(other, drafted)
    assert same(other, bits(model))
    assert result.plan.removals == drafted.removals
    with torch.no_grad():
        assert torch.equal(other(X.clone()), model(X.clone()))
    assert sum(layer.params[1] for layer in result.layers) == result.report.params["after"]
    result.undo()
    assert same(model, before)


def test_depth_twice_composes():
    model = drawn(3)
    other = copy.deepcopy(model)
    first = prunekit.prune(model, X, roles=["depth.block"], ratio=0.3, scorer="random").plan
    second = prunekit.prune(model, X, roles=["depth.block"], ratio=0.4, scorer="random").plan
    prunekit.apply(other, prunekit.compose(first, second))
    assert same(other, bits(model))
    with torch.no_grad():
        assert torch.equal(other(X.clone()), model(X.clone()))


def test_a_target_is_met_with_as_few_blocks_as_it_takes():
    model = Net(6, "plain", "listed", 12).eval()
    result = prunekit.prune(model, X, roles=["depth.block"], target="macs<=60%")
    macs = result.report.macs
    assert macs["after"] <= 0.6 * macs["before"] < macs["after"] + macs["before"] / 6
    with pytest.raises(SelectionError, match="out of reach by depth alone: without"):
        prunekit.prune(model, X, roles=["depth.block"], target="macs<=1%")


def test_the_block_that_does_least_goes_first():
    model = Net(5, "plain", "listed", 12).eval()
    with torch.no_grad():
        model.blocks[3].down.weight.mul_(1e-3)
        model.blocks[3].down.bias.mul_(1e-3)
    for scorer in ("damage", "damage_greedy", "block_influence", None):
        plan = prunekit.plan(model, X, roles="depth.block", ratio=0.2, scorer=scorer, data=[X[:1]])
        assert plan.removals[0].gone == ("blocks.3",)


def test_greedy_sees_that_two_blocks_stand_in_for_one_another():
    """One adds v, one takes most of it away again: each alone hurts, both together hardly do."""
    model = Net(4, "plain", "listed", 12).eval()
    with torch.no_grad():
        model.last.weight.copy_(torch.eye(3, 8))
        for block, at, size in zip(model.blocks, (2, 0, 0, 1), (3.0, 1.0, -1.2, 1.1), strict=True):
            block.down.weight.zero_()
            block.down.bias.copy_(torch.eye(8)[at] * size)
    alone = prunekit.plan(model, X, roles="depth.block", ratio=0.5, scorer=prunekit.Damage(), data=[X[:1]])
    greedy = prunekit.plan(model, X, roles="depth.block", ratio=0.5, scorer=prunekit.Damage(greedy=True), data=[X[:1]])

    def hurt(plan):
        with torch.no_grad():
            with bypassed(model, plan.removals[0].gone):
                passed = model(X)
            return float((passed - model(X)).square().mean())

    assert greedy.removals[0].gone == ("blocks.1", "blocks.2") != alone.removals[0].gone
    assert hurt(greedy) < hurt(alone)


def test_blocks_stay_that_nobody_names():
    model = Net(4, "plain", "listed", 12).eval()
    assert not prunekit.plan(model, X, ratio=0.5).removals
    assert [group.name for group in prunekit.trace(model, X).depth.blocks] == ["blocks"]


class Shared(nn.Module):
    """The same block four times."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(8, 12, "plain", 0)] * 4)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class Returns(Net):
    """Every block's stream is returned."""

    def forward(self, x):
        seen = []
        for block in self.blocks:
            x = block(x)
            seen.append(x)
        return seen


class Cached(Net):
    """A value of every block is kept by its place, and only later read by it."""

    def forward(self, x):
        for at, block in enumerate(self.blocks):
            x = block(x) * (1.0 + at)
        return x


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Shared(), "runs 4 times in one pass"),
        (Returns(3, "plain", "listed", 4), "it is returned by itself"),
        (Cached(3, "plain", "listed", 4), "differs by"),
    ],
    ids=["shared", "returned", "by place"],
)
def test_what_cannot_go_says_why(model, reason):
    before = bits(model.eval())
    with pytest.raises(NothingToPruneError, match=reason):
        prunekit.prune(model, X, roles=["depth.block"], ratio=0.5)
    assert same(model, before)


def test_a_block_that_cannot_go_stays_and_another_goes():
    class First(Net):
        def forward(self, x):
            x = self.blocks[0](x) if len(self.blocks) == 4 else self.blocks[0](x) * 2
            for block in self.blocks[1:]:
                x = block(x)
            return x

    model = First(4, "plain", "listed", 4).eval()
    with pytest.raises(NothingToPruneError):
        prunekit.prune(model, X, roles=["depth.block"], ratio=0.25)
    model = Net(4, "plain", "listed", 4).eval()
    model.blocks[1].register_forward_hook(lambda *_: None)
    plan = prunekit.plan(model, X, roles=["depth.block"], ratio=0.75, scorer="random")
    assert sorted(plan.removals[0].gone) == ["blocks.0", "blocks.2", "blocks.3"]
    assert any(frozen.name == "blocks.1" and "hook" in frozen.reason for frozen in plan.frozen)


def test_bad_input_is_refused():
    model = Net(4, "plain", "listed", 12).eval()
    with pytest.raises(ScorerError, match="says nothing of whole blocks"):
        prunekit.plan(model, X, roles=["depth.block"], ratio=0.5, scorer="magnitude")
    with pytest.raises(ScorerError, match="says nothing of single units"):
        prunekit.plan(model, X, ratio=0.5, scorer="damage")
    with pytest.raises(InputError, match="does not say how much of it depth takes"):
        prunekit.plan(model, X, roles=["depth.block", "mlp.hidden"], target="params<=50%")
    with pytest.raises(InputError, match="matches no block"):
        prunekit.plan(model, X, roles=["depth.block"], ratio=0.5, exclude="blocks.9")
    with pytest.raises(NothingToPruneError, match="takes none of 4 blocks"):
        prunekit.plan(model, X, roles=["depth.block"], ratio=0.01)
    plan = prunekit.plan(model, X, roles=["depth.block"], ratio=0.5)
    prunekit.apply(model, plan)
    with pytest.raises(PlanError):
        prunekit.apply(model, plan)


def test_exclude_and_max_ratio_hold():
    model = Net(6, "plain", "listed", 4).eval()
    plan = prunekit.plan(model, X, roles=["depth.block"], ratio=0.5, exclude=["blocks.0", "blocks.5"], scorer="random")
    assert not {"blocks.0", "blocks.5"} & set(plan.removals[0].gone)
    plan = prunekit.plan(model, X, roles=["depth.block"], ratio=0.5, max_ratio=0.2, scorer="random")
    assert len(plan.removals[0].gone) == 1


def test_what_cannot_be_compared_is_not_certified():
    model = Net(4, "plain", "listed", 4).eval()
    with torch.no_grad():
        model.first.weight[0, 0] = torch.nan
    with pytest.raises(NothingToPruneError, match="NaN"):
        prunekit.plan(model, X, roles=["depth.block"], ratio=0.5, scorer="random")
