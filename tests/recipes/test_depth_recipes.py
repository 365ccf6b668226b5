"""Recipes that cut whole blocks and then widths: one plan says both, and what does not fit together is refused."""

from __future__ import annotations

import pytest
import torch

import prunekit
from prunekit.comparison import compare
from prunekit.errors import InputError, RecipeError
from prunekit.recipes import OWN, Prune, Recipe, override, stages_of
from prunekit.registry import build
from prunekit.runs import run
from prunekit.scorers import Magnitude

FAST = {"images": 2, "train_images": 2, "val_images": 2, "epochs": 1, "batch": 2, "latency": False, "compensate": ""}
VIT = {"img_size": 32, "patch_size": 8, "depth": 4, "num_classes": 5, "embed_dim": 24, "num_heads": 3}
BY_NAME = {recipe.name: recipe for recipe in OWN}


def made():
    torch.manual_seed(0)
    return build("timm:vit_tiny_patch16_224", plugins=[], **VIT)


def fast(name, **more):
    recipe = BY_NAME[name]
    return override(recipe, {key: value for key, value in {**FAST, **more}.items() if key in recipe.settings})


def done(name, settings=(), **asked):
    return run(made(), fast(name, **dict(settings)), Magnitude(), **asked)


BOTH = {"depth.block": 0.5, "mlp.hidden": 0.5}


@pytest.mark.parametrize("name", ["depth-then-width", "minitron"])
def test_blocks_go_and_then_widths_and_one_plan_makes_the_same_of_a_fresh_model(name):
    settings = {"roles": "depth.block,mlp.hidden"} if name == "minitron" else {}
    result = done(name, settings, ratio=BOTH)
    assert len(result.model.blocks) == 2
    titles = [stage["title"] for stage in result.report["stages"]]
    assert titles.index("prune blocks") < titles.index("prune" if name == "minitron" else "prune widths")
    fresh = made().model
    prunekit.apply(fresh, result.plan)
    assert {k: v.shape for k, v in fresh.state_dict().items()} == {
        k: v.shape for k, v in result.model.state_dict().items()
    }
    assert result.model.blocks[0].mlp.fc1.out_features == 48
    assert result.report["verify"]["depth"] == "passed"
    assert result.report["params"]["after"] == sum(p.numel() for p in result.model.parameters())


def test_a_target_is_shared_between_blocks_and_widths_as_the_setting_says():
    result = done("depth-then-width", {"blocks": "1"}, target="params<=60%")
    assert len(result.model.blocks) == 2  # blocks alone meet it
    few = done("depth-then-width", {"blocks": "0.1"}, target="params<=60%")
    assert len(few.model.blocks) == 3  # what goes first is a block at least, and widths take the rest
    for each in (result, few):
        assert each.report["params"]["after"] <= 0.6 * each.report["params"]["before"]


def test_minitron_takes_blocks_alone():
    result = done("minitron", {"roles": "depth.block"}, ratio=0.5)
    assert len(result.model.blocks) == 2
    assert all(width["role"] == "depth.block" for width in result.report["widths"])


@pytest.mark.parametrize("role", ["depth.mlp", "depth.attention"])
def test_minitron_takes_branches_alone_or_before_widths(role):
    result = done("minitron", {"roles": role}, ratio=0.5)
    assert len(result.model.blocks) == 4
    assert {width["role"] for width in result.report["widths"]} == {role}
    assert result.report["params"]["after"] < 0.9 * result.report["params"]["before"]
    both = done("minitron", {"roles": f"{role},mlp.hidden", "blocks": 1}, ratio={role: 0.25, "mlp.hidden": 0.5})
    assert {width["role"] for width in both.report["widths"]} == {role, "mlp.hidden"}


def test_iterative_takes_blocks_a_few_at_a_time():
    recipe = fast("iterative", prune_steps=2)
    result = run(made(), recipe, prunekit.BlockInfluence(), ratio=0.5, roles=["depth.block"])
    assert len(result.model.blocks) == 2


def test_what_does_not_fit_together_is_refused_before_anything_is_cut():
    with pytest.raises(RecipeError, match="says nothing of whole blocks"):
        done("depth-then-width", ratio={"mlp.hidden": 0.5})
    with pytest.raises(RecipeError, match="blocks alone are asked for"):
        done("depth-then-width", ratio={"depth.block": 0.5})
    with pytest.raises(RecipeError, match="depth-then-width"):
        done("minitron", roles=["depth.block"])
    mixed = Recipe("mixed", "", (Prune("both", (("depth.block", "mlp.hidden"),)),), fast("oneshot").settings)
    with pytest.raises(RecipeError, match="not both"):
        run(made(), mixed, Magnitude(), ratio=0.5)
    flat = build("timm:resnet10t", plugins=[], num_classes=5)
    before = {key: value.clone() for key, value in flat.model.state_dict().items()}
    with pytest.raises(RecipeError, match="no block that could go"):
        run(flat, fast("depth-then-width"), Magnitude(), ratio=0.5)
    assert all(torch.equal(value, before[key]) for key, value in flat.model.state_dict().items())


def test_the_stages_say_what_the_settings_ask():
    stages = stages_of(fast("minitron", roles="depth.block,attention.head_dim"))
    cuts = [stage for stage in stages if isinstance(stage, Prune)]
    assert [cut.pools for cut in cuts] == [(("depth.block",),), (("attention.head_dim",),)]
    assert [cut.deep for cut in cuts] == [True, False]
    assert cuts[0].share == 0.5


def test_criteria_of_blocks_are_compared_against_chance_and_the_model_is_put_back():
    model = made().model.eval()
    inputs = [torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(n)) for n in range(6)]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    kept = []

    def evaluate(cut):
        kept.append(len(cut.blocks))
        return {"blocks": float(len(cut.blocks))}

    found = compare(
        model,
        ["damage", "damage_greedy", "block_influence", "magnitude", "disturbed_taylor"],
        evaluate,
        inputs[0],
        data=inputs,
        seeds=(0, 1),
        images=2,
        roles=["depth.block"],
        ratio=0.5,
    )
    by_name = {line.scorer: line for line in found.lines}
    assert [len(by_name[name].trials) for name in ("random", "damage", "damage_greedy", "block_influence")] == [2] * 4
    assert all("whole blocks" in by_name[name].why for name in ("magnitude", "disturbed_taylor"))
    assert kept[0] == 4
    assert set(kept[1:]) == {2}
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with pytest.raises(InputError, match="apart"):
        compare(model, ["damage"], evaluate, inputs[0], data=inputs, ratio=BOTH)
