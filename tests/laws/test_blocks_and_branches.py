"""Blocks and branches in one call: what is left is the model with both passed by; a branch in a block goes once."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import nn

import prunekit
from prunekit.modules.absent import Absent
from prunekit.scorers.needs import Needs

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
OTHER = torch.randn(3, 7, 8, generator=torch.Generator().manual_seed(1))
BOTH = ["depth.block", "depth.attention", "depth.mlp"]


class Kept:
    """What a model keeps between its calls, a row an attention."""

    def __init__(self) -> None:
        self.rows: list[torch.Tensor] = []

    def update(self, keys: torch.Tensor, at: int) -> torch.Tensor:
        if at < len(self.rows):
            self.rows[at] = torch.cat([self.rows[at], keys], 1)
        else:
            self.rows.append(keys)
        return self.rows[at]


class Mixer(nn.Module):
    def __init__(self, layer_idx: int | None) -> None:
        super().__init__()
        self.qkv, self.out, self.layer_idx = nn.Linear(8, 24), nn.Linear(8, 8), layer_idx

    def forward(self, x, kept):
        q, k, v = self.qkv(x).chunk(3, -1)
        if kept is not None:
            k, v = kept.update(torch.cat([k, v], -1), self.layer_idx).chunk(2, -1)
        return self.out((q @ k.transpose(-1, -2)).softmax(-1) @ v), None


class Layer(nn.Module):
    """``silence`` holds what of it is passed by: by its own forward, so nothing of the library is in it."""

    def __init__(self, layer_idx: int | None, parallel: bool) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(8), Mixer(layer_idx), nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
        self.parallel, self.silence = parallel, set()

    def forward(self, x, kept=None):
        if "block" in self.silence:
            self.attn(self.norm1(x), kept)  # what is written into a cache is its own
            return x
        attends = self.attn(self.norm1(x), kept)[0] * ("attention" not in self.silence)
        if self.parallel:
            return attends + self.mlp(self.norm2(x)) * ("mlp" not in self.silence) + x
        x = x + attends
        return x + self.mlp(self.norm2(x)) * ("mlp" not in self.silence)


class Stack(nn.Module):
    def __init__(self, depth: int, *, parallel: bool = False, caches: bool = False) -> None:
        super().__init__()
        self.first, self.last, self.caches = nn.Linear(8, 8), nn.Linear(8, 3), caches
        self.layers = nn.ModuleList(Layer(n if caches else None, parallel) for n in range(depth))

    def forward(self, x, kept=None):
        kept = Kept() if self.caches and kept is None else kept
        x = self.first(x)
        for layer in self.layers:
            x = layer(x, kept)
        return {"logits": self.last(x), "kept": kept} if self.caches else self.last(x)


def drawn(seed: int) -> Stack:
    dice = random.Random(seed)
    torch.manual_seed(seed)
    return Stack(dice.randint(3, 5), parallel=dice.random() < 0.5, caches=dice.random() < 0.5).eval()


def bits(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    now = model.state_dict()
    return list(now) == list(before) and all(torch.equal(now[name], before[name]) for name in before)


def silent(dense: Stack, plan: prunekit.Plan) -> Stack:
    for width in plan.widths:
        for unit in set(range(width.before)) - set(width.kept):
            dense.layers[unit].silence.add(width.role.removeprefix("depth."))
    return dense


def logits(model: Stack, x: torch.Tensor, *, again: bool = False) -> torch.Tensor:
    made = model(x.clone())
    if again and isinstance(made, dict):
        made = model(x.clone(), made["kept"])
    return made["logits"] if isinstance(made, dict) else made


@pytest.mark.parametrize("seed", range(7))  # up to the first that draws the kind of one before
def test_what_is_left_is_the_model_with_both_passed_by(seed):
    model, dice = drawn(seed), random.Random(seed)
    dense, before = copy.deepcopy(model), bits(model)
    asked = {"roles": BOTH, "ratio": dice.choice([0.3, 0.5]), "scorer": prunekit.Random(seed=seed)}
    if dice.random() < 0.5:
        asked = {**asked, "ratio": {"depth.block": 0.3, "depth.attention": 0.5, "depth.mlp": 0.6}}
    result = prunekit.prune(model, X, **asked)
    gone = {(w.role, u) for w in result.plan.widths for u in set(range(w.before)) - set(w.kept)}
    assert all(("depth.mlp", u) in gone and ("depth.attention", u) in gone for role, u in gone if role == BOTH[0])
    assert result.report.params["after"] == sum(p.numel() for p in model.parameters())
    again = prunekit.Plan.from_json(result.plan.to_json())
    assert again == result.plan
    dense_now = silent(copy.deepcopy(dense), result.plan)
    with torch.no_grad():
        for x in (X, OTHER):
            assert torch.equal(logits(model, x), logits(dense_now, x))
            assert torch.equal(logits(model, x, again=True), logits(dense_now, x, again=True))
        with prunekit.applied(dense, again):
            assert same(dense, bits(model))
            assert torch.equal(logits(dense, OTHER), logits(model, OTHER))
    result.undo()
    assert same(model, before)
    assert not any(isinstance(module, Absent) for module in model.modules())


def test_a_number_takes_so_large_a_share_of_all_units_each_once():
    model = Stack(4).eval()
    for seed in range(3):
        plan = prunekit.plan(model, X, roles=BOTH, ratio=0.5, scorer=prunekit.Random(seed=seed))
        lost = sum(width.before - width.after for width in plan.widths)
        assert 6 <= lost <= 8  # of twelve; the last one may be a block, with what is in it
    plan = prunekit.plan(model, X, ratio={BOTH[0]: 0.25, BOTH[1]: 0.26, BOTH[2]: 0.27}, scorer="random")
    assert {w.role: w.before - w.after for w in plan.widths} == dict.fromkeys(BOTH, 1)  # went along: asked no more
    assert not plan.absences


@pytest.mark.parametrize("scorer", ["damage", "damage_greedy", "block_influence"])
def test_a_score_is_held_against_what_goes(scorer):
    torch.manual_seed(0)
    model = Stack(4).eval()
    with torch.no_grad():
        for part in (model.layers[1].attn.out, model.layers[1].mlp[2], model.layers[2].mlp[2]):
            part.weight.mul_(1e-3)
            part.bias.mul_(1e-3)
    plan = prunekit.plan(model, X, roles=BOTH, ratio=4 / 12, scorer=scorer, data=[X[:1]])
    gone = {(w.role, u) for w in plan.widths for u in set(range(w.before)) - set(w.kept)}
    assert {("depth.attention", 1), ("depth.mlp", 1), ("depth.mlp", 2)} <= gone


def test_bounds_and_exclusions_hold_for_what_goes_along():
    model = Stack(4).eval()
    for seed in range(2):
        asked = {"roles": BOTH, "ratio": 0.5, "scorer": prunekit.Random(seed=seed)}
        plan = prunekit.plan(model, X, **asked, exclude="layers.1.attn")
        gone = {(w.role, u) for w in plan.widths for u in set(range(w.before)) - set(w.kept)}
        assert not gone & {("depth.block", 1), ("depth.attention", 1)}
        plan = prunekit.plan(model, X, **asked, max_ratio={"depth.attention": 0.25})
        assert sum(w.before - w.after for w in plan.widths if w.role == "depth.attention") <= 1
        assert sum(w.before - w.after for w in plan.widths if w.role == "depth.block") <= 1


def test_a_branch_that_must_stay_keeps_no_block_from_going():
    model = Stack(3).eval()
    model.layers[1].attn.out.register_forward_hook(lambda *_: None)
    plan = prunekit.plan(model, X, roles=BOTH, ratio={"depth.block": 0.34, "depth.mlp": 0.34}, scorer="random")
    assert sum(w.before - w.after for w in plan.widths if w.role == "depth.block") == 1


class Given:
    """A whole block is worth little more than a part of it, so by what it spares it is worth least."""

    of_blocks = True
    needs = Needs("nothing", "none")

    def score(self, group, statistics):
        return torch.full((group.size,), 1.0 if group.role == "depth.block" else 0.9, dtype=torch.float64)


def test_no_block_goes_where_a_branch_is_enough():
    plan = prunekit.plan(Stack(4).eval(), X, roles=BOTH, scorer=Given(), target="params<=92%")
    assert "depth.block" not in {w.role for w in plan.widths}
    plan = prunekit.plan(Stack(4).eval(), X, roles=BOTH, scorer=Given(), target="params<=60%")
    assert "depth.block" in {w.role for w in plan.widths}


def test_a_target_counts_what_goes_once():
    model = Stack(4).eval()
    before = bits(model)
    result = prunekit.prune(model, X, roles=BOTH, target="params<=60%", data=[X[:1], X[1:]])
    params = result.report.params
    assert params["after"] == sum(p.numel() for p in model.parameters()) <= 0.6 * params["before"]
    result.undo()
    assert same(model, before)


def test_maps_stand_for_blocks_and_branches_in_the_order_of_the_model():
    torch.manual_seed(1)
    model = Stack(4).eval()
    before = bits(model)
    asked = {"ratio": {"depth.block": 0.25, "depth.mlp": 0.5}, "replace": "affine", "scorer": prunekit.Random(seed=3)}
    result = prunekit.prune(model, X, **asked, data=[X, OTHER])
    maps = [absence.module for absence in result.plan.absences if absence.has_map]
    order = [name for name, _ in model.named_modules()]
    assert len(maps) == 2
    assert maps == sorted(maps, key=order.index)
    assert result.report.params["after"] == sum(p.numel() for p in model.parameters())
    result.undo()
    assert same(model, before)


def test_widths_too_and_folders_keep_it(tmp_path):
    torch.manual_seed(2)
    model = Stack(4, caches=True).eval()
    fresh, before = copy.deepcopy(model), bits(model)
    ratio = {"depth.block": 0.25, "depth.mlp": 0.5, "mlp.hidden": 0.5}
    result = prunekit.prune(model, X, ratio=ratio, scorer="random")
    prunekit.save(result, tmp_path / "kept")
    again = prunekit.load(tmp_path / "kept", fresh)
    with torch.no_grad():
        assert torch.equal(logits(again, OTHER, again=True), logits(model, OTHER, again=True))
    result.undo()
    assert same(model, before)


def test_a_cache_whose_rows_are_still_written_is_no_obstacle():
    """Of a self-attention that hands a bias to the next one the layers go, and it writes zeros into the cache."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=16, d_model=8, d_ff=8, num_layers=2, num_decoder_layers=3, num_heads=2, d_kv=4
    )
    model, ids = transformers.T5Model(config).eval(), torch.arange(5)[None]
    before = bits(model)
    asked = {"roles": ["depth.block", "depth.attention"], "scorer": "random", "ratio": 0.99}
    include = ["decoder.block.1", "decoder.block.2.layer.0"]
    result = prunekit.prune(model, {"input_ids": ids, "decoder_input_ids": ids}, **asked, include=include)
    assert [removal.gone for removal in result.plan.removals] == [("decoder.block.1",)]
    assert any(absence.module.startswith("decoder.block.2.layer.0") for absence in result.plan.absences)
    result.undo()
    assert same(model, before)
