"""The recipes that prunekit brings itself, on a convolutional network and a transformer, and what users ask of them."""

from __future__ import annotations

import copy

import pytest
import torch

from prunekit.errors import InputError, RecipeError, SelectionError
from prunekit.options import Scope
from prunekit.recipes import COMMON, OWN, Distil, Evaluate, Prune, Recipe, Repeat, Term, override, stages_of
from prunekit.registry import build
from prunekit.runs import run
from prunekit.scorers import Magnitude

FAST = {"images": 2, "train_images": 2, "val_images": 2, "epochs": 1, "batch": 2, "latency": False, "prune_steps": 2}
VIT = {"img_size": 32, "patch_size": 8, "depth": 2, "num_classes": 5, "embed_dim": 48, "num_heads": 3}
OUTPUT = (Term("output"),)


def made(kind="vit"):
    torch.manual_seed(0)
    if kind == "vit":
        return build("timm:vit_tiny_patch16_224", plugins=[], **VIT)
    return build("timm:resnet10t", plugins=[], num_classes=5)


def fast(recipe, **more):
    return override(recipe, {k: v for k, v in {**FAST, **more}.items() if k in recipe.settings})


BY_NAME = {recipe.name: recipe for recipe in OWN}
ON_VIT = [(name, "vit") for name in BY_NAME if name != "network-slimming"]


@pytest.mark.parametrize(("name", "kind"), [*ON_VIT, ("network-slimming", "cnn"), ("iterative", "cnn")])
def test_each_recipe_runs(name, kind):
    recipe = BY_NAME[name]
    result = run(made(kind), fast(recipe), Magnitude(), ratio=0.5)
    left = 0.6 if recipe.settings.get("roles", "") == "" else 0.75  # of its hidden units alone
    assert result.report["params"]["after"] < left * result.report["params"]["before"]
    assert [stage["title"] for stage in result.report["stages"]] == [s.title for s in stages_of(fast(recipe))]


def test_network_slimming_needs_batch_norms():
    with pytest.raises(RecipeError, match="no batch norm"):
        run(made(), fast(BY_NAME["network-slimming"]), Magnitude())


def test_repeated_stages_are_written_out_on_the_schedule():
    recipe = Recipe(
        "r", "", (Repeat((Prune("prune"), Distil("train", OUTPUT))),), {"prune_steps": 3, "schedule": "linear"}
    )
    stages = stages_of(recipe)
    assert [s.title for s in stages] == [f"{t}, {n} of 3" for n in (1, 2, 3) for t in ("prune", "train")]
    assert [s.part for s in stages[::2]] == pytest.approx([1 / 3, 2 / 3, 1])


def widths_after(recipe, goal):
    found = []
    model = made()
    result = run(model, recipe, Magnitude(), listen=lambda e: found.append(e), **goal)
    return {w.group: w.after for w in result.plan.widths}, result


@pytest.mark.parametrize("goal", [{"ratio": 0.5}, {"target": "params<=50%"}])
def test_several_steps_end_where_one_does(goal):
    once = Recipe("once", "", (Prune("prune"),), {**COMMON, **FAST})
    steps = Recipe("steps", "", (Repeat((Prune("prune"),)),), {**COMMON, **FAST, "schedule": "cubic", "prune_steps": 3})
    one, several = widths_after(once, goal), widths_after(steps, goal)
    if "ratio" in goal:
        assert one[0] == several[0]
    else:
        before = one[1].report["params"]["before"]
        for _, result in (one, several):
            assert 0.4 * before < result.report["params"]["after"] <= 0.5 * before


def test_each_step_takes_its_part_of_what_goes():
    counts = []

    class Counting(Magnitude):
        def score(self, group, statistics):
            if group.role == "mlp.hidden":
                counts.append(group.size)
            return super().score(group, statistics)

    steps = Recipe(
        "steps", "", (Repeat((Prune("prune"),)),), {**COMMON, **FAST, "schedule": "linear", "prune_steps": 2}
    )
    run(made(), steps, Counting(), ratio=0.5)
    assert sorted(counts, reverse=True) == [192, 192, 144, 144]


def test_a_ratio_for_each_role_leaves_the_others_whole():
    recipe = Recipe("once", "", (Prune("prune"),), {**COMMON, **FAST})
    result = run(made(), recipe, Magnitude(), ratio={"mlp.hidden": 0.75})
    assert {w.role: (w.before, w.after) for w in result.plan.widths if w.before != w.after} == {"mlp.hidden": (192, 48)}
    assert result.report["ratio"] == {"mlp.hidden": 0.75}


def test_what_is_excluded_stays():
    recipe = Recipe("once", "", (Prune("prune"),), {**COMMON, **FAST})
    result = run(made(), recipe, Magnitude(), ratio=0.5, exclude=["embedding", "blocks.0.*"])
    cut = {w.group for w in result.plan.widths if w.before != w.after}
    assert cut
    assert not [name for name in cut if name.startswith(("blocks.0.", "patch_embed", "pos_embed", "cls_token"))]


STAGED = Recipe(
    "staged",
    "",
    (
        Prune("embedding", (("embedding",),), {"embedding": "heads"}),
        Prune("bottleneck", (("attention.head_dim",), ("mlp.hidden",))),
    ),
    {**COMMON, **FAST},
)


@pytest.mark.parametrize("target", ["params<=40%", "macs<=40%", "macs<=60%, params<=30%"])
def test_a_target_over_two_kinds_of_cut_is_met_and_both_take_part(target):
    result = run(made(), STAGED, Magnitude(), target=target)
    report, names = result.report, [part.split("<=")[0].strip() for part in target.split(",")]
    shares = {name: report[name]["after"] / report[name]["before"] for name in names}
    limits = {part.split("<=")[0].strip(): float(part.split("<=")[1].strip("% ")) / 100 for part in target.split(",")}
    assert all(shares[name] <= limits[name] for name in names)
    assert any(shares[name] > limits[name] - 0.06 for name in names)
    assert {w.role for w in result.plan.widths if w.after < w.before} == {
        "embedding",
        "attention.head_dim",
        "mlp.hidden",
    }


def test_a_target_out_of_reach_is_refused_before_anything_is_cut():
    model = made()
    before = copy.deepcopy(model.model.state_dict())
    with pytest.raises(SelectionError, match=r"out of reach: \d+% of every group gone leaves params \d"):
        run(model, STAGED, Magnitude(), target="params<=1")
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())


def test_ratio_and_target_together_are_refused():
    with pytest.raises(InputError, match="both"):
        Scope(0.5, "macs<=50%")


def test_compensation_brings_outputs_closer():
    recipe = Recipe(
        "once", "", (Evaluate("a", "before"), Prune("prune"), Evaluate("b", "after")), {**COMMON, **FAST, "images": 16}
    )
    plain = run(made(), recipe, Magnitude(), ratio=0.3).report["metrics"]["output_cosine"]["after"]
    ridge = override(recipe, {"compensate": "ridge"})
    refitted = run(made(), ridge, Magnitude(), ratio=0.3).report["metrics"]["output_cosine"]["after"]
    assert refitted > plain


@pytest.mark.parametrize(
    "asked", [{"steps": 3}, {"free_outputs": True}, {"on_step": print}, {"steps": 2, "schedule": "linear"}]
)
def test_an_option_that_recipes_have_no_use_for_is_refused(asked):
    built = made()
    before = copy.deepcopy(built.model.state_dict())
    with pytest.raises(InputError, match="a recipe has no use for"):
        run(built, fast(BY_NAME["oneshot"]), Magnitude(), ratio=0.5, **asked)
    assert all(torch.equal(value, before[name]) for name, value in built.model.state_dict().items())
