"""An affine map whose stream is cut by the same plan stands for what the module added to the features that are left."""

from __future__ import annotations

import copy

import pytest
import torch
from support.compare import differences, snapshot
from torch import nn

import prunekit
from prunekit.plans.contents import Plan


class Block(nn.Module):
    def __init__(self, width=16, hidden=32, *, bent=True):
        super().__init__()
        self.norm = nn.LayerNorm(width) if bent else nn.Identity()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.bent = bent

    def forward(self, x):
        hidden = self.up(self.norm(x))
        return x + self.down(hidden.relu() if self.bent else hidden)


class Network(nn.Module):
    """Blocks over one stream, and, behind a change of width, over another."""

    def __init__(self, *, bent=True, blocks=4, others=3):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.between, self.head = nn.Linear(8, 16), nn.Linear(16, 12), nn.Linear(12, 3)
        self.blocks = nn.ModuleList(Block(bent=bent) for _ in range(blocks))
        self.others = nn.ModuleList(Block(12, 20, bent=bent) for _ in range(others))

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        x = self.between(x)
        for block in self.others:
            x = block(x)
        return self.head(x)


def data(count=6):
    return [torch.randn(24, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(count)]


def composed(model, *, roles, replace, then):
    """A plan that takes depth and then cuts widths, as a mixed allocation makes them."""
    slim = copy.deepcopy(model)
    deep = prunekit.prune(
        slim, data()[0], data=data(), roles=roles, ratio=0.5, replace=replace, scorer=prunekit.Damage(samples=2)
    ).plan
    return prunekit.compose(deep, prunekit.prune(slim, data()[0], roles=then, ratio=0.5, scorer="magnitude").plan)


@pytest.mark.parametrize(
    ("roles", "replace"), [("depth.block", "affine"), ("depth.mlp", "affine"), ("depth.mlp", None)]
)
def test_it_is_applied_and_taken_back(roles, replace):
    model = Network().eval()
    plan = composed(model, roles=[roles], replace=replace, then=["embedding"])
    assert Plan.from_json(plan.to_json()) == plan
    before = snapshot(model)
    undo = prunekit.apply(model, plan, data=data())
    assert model.first.out_features == 8
    answer = model(data()[0])
    assert answer.isfinite().all()
    undo()
    assert not differences(before, snapshot(model))
    prunekit.apply(model, plan, data=data())
    torch.testing.assert_close(model(data()[0]), answer)


def test_a_map_of_an_affine_branch_is_its_own_weights_on_what_is_left():
    model = Network(bent=False).eval()
    plan = composed(model, roles=["depth.mlp"], replace="affine", then=["embedding"])
    maps = [absence for absence in plan.absences if absence.has_map and absence.module.startswith("blocks")]
    assert maps
    kept = list(maps[0].kept)
    assert len(kept) == 8
    gone = [unit for unit in range(16) if unit not in kept]
    with torch.no_grad():
        model.first.weight[gone] = 0  # what goes carries nothing, so what is left says all
        model.first.bias[gone] = 0
        for block in model.blocks:
            block.down.weight[gone] = 0
            block.down.bias[gone] = 0
    path = maps[0].module.rpartition(".")[0]
    block = copy.deepcopy(model.get_submodule(path))
    prunekit.apply(model, plan, data=data())
    found = model.get_submodule(f"{maps[0].module}.affine_map")
    wanted, bias = block.down.weight @ block.up.weight, block.down.weight @ block.up.bias + block.down.bias
    torch.testing.assert_close(found.weight, wanted[kept][:, kept], rtol=1e-2, atol=5e-3)  # lambda is not 0
    torch.testing.assert_close(found.bias, bias[kept], rtol=1e-2, atol=5e-3)


def test_maps_of_one_stream_are_fitted_where_blocks_of_another_have_gone():
    """The first stream stays; what adds zeros to the second cannot run on what is left of it."""
    model = Network().eval()
    slim = copy.deepcopy(model)
    maps = prunekit.prune(
        slim, data()[0], data=data(), roles=["depth.mlp"], include=["blocks*"], ratio=0.5, replace="affine",
        scorer=prunekit.Damage(samples=2),
    ).plan  # fmt: skip
    zeros = prunekit.prune(slim, data()[0], roles=["depth.mlp"], include=["others*"], ratio=0.5, scorer="random").plan
    narrow = prunekit.prune(slim, data()[0], include=["head*"], ratio=0.5, scorer="magnitude").plan
    plan = prunekit.compose(prunekit.compose(maps, zeros), narrow)
    assert [absence.module for absence in plan.absences if absence.has_map and not absence.kept]
    assert [absence.module for absence in plan.absences if absence.module.startswith("others")]
    prunekit.apply(model, plan, data=data())
    assert (model.first.out_features, model.between.out_features) == (16, 6)
    assert model(data()[0]).isfinite().all()


class Reader(nn.Module):
    """Adds to its stream what it reads from another one."""

    def __init__(self, width=16, other=12):
        super().__init__()
        self.query, self.key, self.out = nn.Linear(width, 8), nn.Linear(other, 8), nn.Linear(other, width)

    def forward(self, x, states):
        return self.out((self.query(x) @ self.key(states).mT).softmax(-1) @ states)


class TwoStreams(nn.Module):
    """A decoder whose branches read an encoder's states."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.states = nn.Linear(8, 20), nn.Linear(20, 12)
        self.first, self.head = nn.Linear(8, 16), nn.Linear(16, 3)
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(4))
        self.readers = nn.ModuleList(Reader() for _ in range(4))

    def forward(self, x):
        states, x = self.states(self.encoder(x).relu()), self.first(x)
        for norm, reader in zip(self.norms, self.readers, strict=True):
            x = x + reader(norm(x), states)
        return self.head(x)


@pytest.mark.parametrize("cut", ["states", "encoder"])
def test_what_reads_another_stream_that_is_cut_is_fitted_before(cut):
    model = TwoStreams().eval()
    slim = copy.deepcopy(model)
    deep = prunekit.prune(
        slim, data()[0], data=data(), roles=["depth.*"], ratio=0.5, replace="affine", scorer=prunekit.Damage(samples=2)
    ).plan
    narrow = prunekit.prune(slim, data()[0], include=[f"{cut}*"], ratio=0.5, scorer="magnitude").plan
    kept = next(one.kept for one in narrow.cuts if one.tensor == f"{cut}.weight" and one.axis == 0)
    with torch.no_grad():  # what goes carries nothing, so the cut changes nothing that a map is fitted to
        for tensor in model.get_submodule(cut).parameters():
            tensor[[unit for unit in range(len(tensor)) if unit not in kept]] = 0
    before = snapshot(model)
    first = f"{next(absence.module for absence in deep.absences if absence.has_map)}.affine_map"
    undo = prunekit.apply(model, deep, data=data())
    wanted = copy.deepcopy(model.get_submodule(first))
    undo()
    undo = prunekit.apply(model, prunekit.compose(deep, narrow), data=data())
    found = model.get_submodule(first)
    torch.testing.assert_close(found.weight, wanted.weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.bias, wanted.bias, rtol=1e-3, atol=1e-4)
    assert model(data()[0]).isfinite().all()
    undo()
    assert not differences(before, snapshot(model))


def test_a_measured_mix_may_have_both(tmp_path):
    sizes = {"blocks": 2, "others": 2}  # every block, MLP and stream is measured gone, and pairs of them
    model = Network(**sizes).eval()
    before = snapshot(model)
    result = prunekit.prune(
        model, data()[0], data=data(), roles=["depth.*", "embedding"], target="params<=40%", replace="affine",
        scorer="magnitude", allocation=prunekit.Measured(samples=2, widths=(0.5,), sets=2),
    )  # fmt: skip
    prunekit.save(result, tmp_path / "slim")
    torch.testing.assert_close(prunekit.load(tmp_path / "slim", Network(**sizes).eval())(data()[0]), model(data()[0]))
    result.undo()
    assert not differences(before, snapshot(model))
