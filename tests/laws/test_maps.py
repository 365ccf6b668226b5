"""Affine maps in the place of what goes: exact where what goes is affine, better than nothing elsewhere, one plan."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn

import prunekit
from prunekit.errors import InputError, NothingToPruneError
from prunekit.modules.absent import MAP
from prunekit.quantities.plan_cost import cost_after

DATA = [torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(6)]
X, OTHER = DATA[0][:, :5], torch.randn(3, 7, 8, generator=torch.Generator().manual_seed(9))


class Mixed(nn.Module):
    """A residual block; what it adds is affine in its stream where ``bends`` is false."""

    def __init__(self, bends: bool, style: str) -> None:
        super().__init__()
        self.up, self.down, self.style = nn.Linear(8, 12), nn.Linear(12, 8), style
        self.act = nn.GELU() if bends else nn.Identity()

    def forward(self, x):
        y = x + self.down(self.act(self.up(x)))
        return (y, None) if self.style == "tuple" else y


class Stack(nn.Module):
    """Some of these."""

    def __init__(self, bends: bool = False, style: str = "plain", depth: int = 4) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 3)
        self.blocks = nn.ModuleList(Mixed(bends, style) for _ in range(depth))

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
            x = x[0] if isinstance(x, tuple) else x
        return self.last(x)


class Maps(nn.Module):
    """The same of maps (N, C, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)
        self.stages = nn.Sequential(*(Bottleneck() for _ in range(3)))

    def forward(self, x):
        return self.head(self.stages(self.stem(x)))


class Bottleneck(nn.Module):
    """Pointwise and affine."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(6, 12, 1), nn.BatchNorm2d(12), nn.Conv2d(12, 6, 1), nn.BatchNorm2d(6))

    def forward(self, x):
        return x + self.inner(x)


def made(model):
    torch.manual_seed(0)
    return model().eval()


def bits(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model, before):
    now = model.state_dict()
    return list(now) == list(before) and all(torch.equal(now[name], before[name]) for name in before)


@pytest.mark.parametrize("style", ["plain", "tuple"])
@pytest.mark.parametrize("role", ["depth.block", "depth.mlp"])
def test_what_is_affine_is_replaced_without_loss(role, style):
    model = made(lambda: Stack(style=style))
    before, state, structure = model(OTHER).detach(), bits(model), prunekit.trace(model, X)
    result = prunekit.prune(model, X, roles=[role], ratio=0.5, replace="affine", scorer="random", data=DATA)
    torch.testing.assert_close(model(OTHER).detach(), before, rtol=0, atol=3e-3)  # the ridge is all that is lost
    assert sum(absence.has_map for absence in result.plan.absences) == 2
    counted = sum(p.numel() for p in model.parameters())
    assert result.report.params["after"] == counted < result.report.params["before"]
    assert sum(layer.params[1] for layer in result.layers) == counted
    predicted = cost_after(structure, result.plan)
    assert (predicted.params, predicted.macs) == (counted, result.report.macs["after"])
    assert prunekit.Plan.from_json(result.plan.to_json()) == result.plan
    result.undo()
    assert same(model, state)


def test_maps_of_channels_are_pointwise():
    model = made(Maps)
    images = [torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
    before = model(images[0]).detach()
    for role in ("depth.block", "depth.branch"):
        result = prunekit.prune(
            model, images[0], roles=[role], ratio=0.6, replace="affine", scorer="random", data=images[1:]
        )
        torch.testing.assert_close(model(images[0]).detach(), before, rtol=0, atol=3e-3)
        result.undo()


class Named(nn.BatchNorm2d):
    """A norm that has what a map is called for an attribute."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        setattr(self, MAP, True)


class Open(nn.Module):
    """A branch that ends in a norm of the block's own, where the map comes to stand."""

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.up, self.middle = nn.Conv2d(6, 12, 1), nn.BatchNorm2d(12)
        self.down, self.norm = nn.Conv2d(12, 6, 1), norm(6)

    def forward(self, x):
        return x + self.norm(self.down(self.middle(self.up(x))))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, Named])
def test_a_map_where_a_norm_was_that_has_attributes_of_such_names(norm):
    model = made(lambda: nn.Sequential(nn.Conv2d(3, 6, 1), *(Open(norm) for _ in range(3)), nn.Conv2d(6, 2, 1)))
    images = [torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
    before = model(images[0]).detach()
    result = prunekit.prune(model, images[0], roles=["depth.branch"], ratio=0.6, replace="affine", data=images[1:])
    assert any(absence.has_map for absence in result.plan.absences)
    torch.testing.assert_close(model(images[0]).detach(), before, rtol=0, atol=3e-3)


@pytest.mark.parametrize("role", ["depth.block", "depth.mlp"])
def test_a_map_is_nearer_than_nothing(role):
    model = made(lambda: Stack(bends=True))
    asked = {"roles": [role], "ratio": 0.5, "scorer": prunekit.Random(seed=3), "data": DATA}
    wanted, apart = [model(x) for x in DATA], {}
    for how in (None, "affine"):
        result = prunekit.prune(model, X, replace=how, **asked)
        apart[how] = sum(float((model(x) - y).detach().square().mean()) for x, y in zip(DATA, wanted, strict=True))
        result.undo()
    assert apart["affine"] < 0.5 * apart[None]


def test_the_same_maps_by_plan_and_by_prune():
    model, other = made(lambda: Stack(bends=True)), made(lambda: Stack(bends=True))
    single = [x[:1] for x in DATA]
    asked = {"roles": ["depth.block"], "ratio": 0.5, "replace": "affine", "data": single}
    plan = prunekit.plan(model, X, **asked)
    with pytest.raises(InputError, match="calibration inputs"):
        prunekit.apply(other, plan)
    prunekit.prune(model, X, **asked)
    prunekit.apply(other, plan, data=single)
    assert same(other, bits(model))


def test_a_folder_keeps_maps_and_widths_cut_after_them(tmp_path, monkeypatch):
    module = types.ModuleType("test_maps_model")
    module.stack = lambda: made(lambda: Stack(bends=True))
    monkeypatch.setitem(sys.modules, "test_maps_model", module)
    model = module.stack()
    asked = {"ratio": {"depth.mlp": 0.5, "embedding": 0.25, "mlp.hidden": 0.5}, "align": 1, "scorer": "random"}
    result = prunekit.prune(model, X, replace="affine", data=DATA, **asked)
    assert model.first.out_features == 6
    assert sum(layer.params[1] for layer in result.layers) == sum(p.numel() for p in model.parameters())
    prunekit.save(result, tmp_path / "kept", spec="python:test_maps_model:stack")
    again = prunekit.load(tmp_path / "kept")
    assert same(again, bits(model))
    assert torch.equal(again(OTHER), model(OTHER))


def test_criteria_are_compared_with_maps_in_the_place_of_what_goes():
    model, seen = made(lambda: Stack(bends=True)), []

    def evaluate(slim):
        seen.append(sum(p.numel() for p in slim.parameters()))
        return {"left": float(seen[-1])}

    asked = {"roles": ["depth.mlp"], "ratio": 0.5, "replace": "affine", "data": [x[:1] for x in DATA]}
    found = prunekit.compare(model, ["damage"], evaluate, X, **asked)
    assert [trial.params for line in found.lines for trial in line.trials] == seen[1:]
    assert seen[1] > seen[0] - 2 * sum(p.numel() for p in model.blocks[0].parameters())


class Returning(nn.Module):
    """Blocks whose second output is read."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Both() for _ in range(3))

    def forward(self, x):
        total = 0.0
        for block in self.blocks:
            x, more = block(x)
            total = total + more
        return x + total


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, x):
        return x + self.one(x), self.two(x).mean() * 1e-9


def test_bad_input_is_refused():
    model = made(lambda: Stack(bends=True))
    before = bits(model)
    asked = {"replace": "affine", "data": DATA}
    with pytest.raises(InputError, match="not a replace"):
        prunekit.plan(model, X, roles=["depth.block"], ratio=0.5, replace="linear")
    with pytest.raises(InputError, match="a target does not count"):
        prunekit.prune(model, X, roles=["depth.block"], target="params<=70%", **asked)
    with pytest.raises(InputError, match="nothing that it could stand for"):
        prunekit.prune(model, X, ratio=0.5, **asked)
    with pytest.raises(InputError, match="widths of what is left"):
        prunekit.plan(model, X, ratio={"depth.block": 0.5, "mlp.hidden": 0.5}, **asked)
    with pytest.raises(NothingToPruneError, match="no affine map of its first input"):
        prunekit.prune(made(Returning), X, roles=["depth.block"], ratio=0.5, scorer="random", **asked)
    broken = [x * torch.inf for x in DATA]
    with pytest.raises(prunekit.errors.PrunekitError):
        prunekit.prune(model, X, roles=["depth.block"], ratio=0.5, scorer="random", replace="affine", data=broken)
    assert same(model, before)


def test_a_library_keeps_its_cache_without_a_block():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "vocab_size": 32}
    config = LlamaConfig(num_hidden_layers=3, num_key_value_heads=1, eos_token_id=2, pad_token_id=0, **sizes)
    model = LlamaForCausalLM(config).eval()
    texts = [{"input_ids": torch.randint(3, 32, (2, 12))} for _ in range(4)]
    for role in ("depth.block", "depth.attention", "depth.mlp"):
        asked = {"roles": [role], "ratio": 0.4, "replace": "affine", "data": texts}
        result = prunekit.prune(model, scorer=prunekit.Random(seed=4), **asked)
        ids, told = torch.arange(3, 9)[None], {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
        assert torch.equal(model.generate(ids, use_cache=True, **told), model.generate(ids, use_cache=False, **told))
        assert result.home.trouble
        result.undo()
