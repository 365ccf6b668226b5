"""A recipe meets a model: roles that are not there, widths that the code binds, caches and writes in place."""

from __future__ import annotations

import copy

import pytest
import torch
from support.selecting import conditions
from torch import nn

from prunekit.coupling.groups import Tap
from prunekit.errors import InputError, RecipeError
from prunekit.options import Options, Scope
from prunekit.planning.drafting import draft
from prunekit.recipes import COMMON, Distil, Prune, Recipe, Term, override
from prunekit.recipes.records import Training
from prunekit.registry import build
from prunekit.runs import run
from prunekit.runs.caches import remade
from prunekit.runs.distillation import distil, term_losses
from prunekit.runs.fitting import comparable, fitted
from prunekit.runs.prune_stage import Asked, cut, structure_of
from prunekit.samples import Samples
from prunekit.scorers import Magnitude
from prunekit.selection.ratio import narrowed

VIT = {"img_size": 32, "patch_size": 8, "depth": 2, "num_classes": 5, "embed_dim": 48, "num_heads": 3}
EMBEDDING, ATTENTION, MLP = ROLES = ("embedding", "attention.head_dim", "mlp.hidden")
FIRST, SECOND = Prune("first", ((EMBEDDING,),)), Prune("second", ((ATTENTION,), (MLP,)))
AFTER_FIRST = Distil("after first", (Term("hidden", (ATTENTION, MLP), aligning=True), Term("output")))
AFTER_SECOND = Distil("after second", (Term("stream", (EMBEDDING,), "previous", aligning=True), Term("output")))
STAGES = (FIRST, AFTER_FIRST, SECOND, AFTER_SECOND)
OUTPUT = (Term("output"),)


def vit(**more):
    torch.manual_seed(0)
    return build("timm:vit_tiny_patch16_224", plugins=[], **{**VIT, **more})


def one_sample(*shape):
    return Samples([torch.randn(1, *shape)], lambda items: torch.cat(list(items)))


def structure(model):
    return structure_of(model, one_sample(3, 32, 32))


def test_a_recipe_that_fits_stays_as_it_is():
    found = fitted(STAGES, ROLES, structure(vit().model), Scope())
    assert found.stages == STAGES
    assert not found.left_out


def test_a_missing_role_takes_its_cut_its_distillation_and_its_terms_along():
    without = structure(vit(num_classes=0, global_pool="").model)
    with pytest.raises(RecipeError, match="role embedding"):
        fitted(STAGES, (ATTENTION, MLP), without, Scope())
    found = fitted(STAGES, ROLES, without, Scope())
    assert found.stages[:3] == (None, None, SECOND)
    assert found.stages[3].terms == OUTPUT
    assert found.present == found.stages[2:]
    assert "it is an output of the model" in found.left_out[0]
    assert [name for name in ("first", "after first") if f"{name!r}" in " ".join(found.left_out)] == [
        "first",
        "after first",
    ]


def test_what_the_user_excludes_is_missing():
    found = fitted(STAGES, ROLES, structure(vit().model), Scope(exclude=[MLP]))
    assert found.stages[2].pools == ((ATTENTION,),)
    assert found.stages[1].terms[0].roles == (ATTENTION,)
    assert found.left_out == ("mlp.hidden is left out: include or exclude leave no group of it",)


def test_a_penalty_goes_with_the_cut_that_it_prepares():
    stages = (Distil("draw", OUTPUT, penalty="group_lasso"), FIRST, Prune("later", ((MLP,),)))
    without = structure(vit(num_classes=0, global_pool="").model)
    assert fitted(stages, ROLES, without, Scope()).stages == (None, None, stages[2])


def test_no_cut_at_all_is_refused():
    with pytest.raises(RecipeError, match="no group with the role"):
        fitted(STAGES, ROLES, structure_of(nn.Sequential(nn.Linear(4, 4)), one_sample(4)), Scope())


def test_the_whole_run_leaves_out_what_is_missing():
    settings = {**COMMON, "images": 2, "train_images": 2, "val_images": 1, "epochs": 1, "latency": False}
    recipe = Recipe("r", "", STAGES, settings, optional=ROLES)
    result = run(vit(), recipe, Magnitude(), ratio=0.5, exclude=["embedding"])
    assert [stage["title"] for stage in result.report["stages"]] == ["second", "after second"]
    assert {w.role for w in result.plan.widths if w.after < w.before} == {ATTENTION, MLP}
    assert len(result.report["left_out"]) == 3
    strict = override(Recipe("r", "", STAGES, settings), {"epochs": 1})
    with pytest.raises(RecipeError, match="role embedding"):
        run(vit(), strict, Magnitude(), ratio=0.5, exclude=["embedding"])


class Bound(nn.Module):
    """Heads share out the width among them, and the product of their values is read as that width."""

    def __init__(self, width=24, heads=3):
        super().__init__()
        self.heads, self.width = heads, width
        self.stem, self.head = nn.Linear(5, width), nn.Linear(width, 4)
        self.norm, self.qkv, self.proj = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        x = self.stem(x)
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        x = x + self.proj((q @ k.transpose(-2, -1)).softmax(-1).matmul(v).transpose(1, 2).reshape(b, n, c))
        return self.head(x)


def test_widths_that_the_code_binds_are_cut_together_and_not_compared(caplog):
    settings = {**COMMON, "images": 1, "train_images": 1, "val_images": 1, "epochs": 2, "align_epochs": 1}
    recipe = Recipe("r", "", (FIRST, AFTER_FIRST), settings | {"latency": False})
    samples = one_sample(7, 5)
    model = Bound()
    asked = Asked.of(recipe.settings, scorer=Magnitude(), ratio=0.5)
    before = structure_of(model, samples)
    sizes = {"original": {group.name: group.size for group in before.groups}}
    first = Prune("first", ((EMBEDDING,),), bound=(ATTENTION, "a role that it lacks"))
    plan, _ = cut(model, first, before, samples, asked, lambda *_: None)
    assert {w.role: w.after for w in plan.widths} == {EMBEDDING: 12, ATTENTION: 4}
    assert "binds embedding to attention.head_dim" in caplog.text
    stage = comparable(
        Distil("d", (Term("h", (ATTENTION,), aligning=True), *OUTPUT)), structure_of(model, samples), sizes
    )
    assert stage.terms == OUTPUT
    assert "its widths are not the teacher's" in caplog.text


def test_a_loss_with_nothing_to_compare_is_refused():
    with pytest.raises(RecipeError, match="no term can be compared"):
        comparable(Distil("d", (Term("h", ("channels",), aligning=True),)), structure(vit().model), {})


class Cached(nn.Module):
    """A bias table is looked up once and kept, as some attention layers do; the scale is a constant of that kind."""

    def __init__(self):
        super().__init__()
        self.linear, self.table = nn.Linear(4, 4), nn.Parameter(torch.randn(4))
        self.cache, self.constants = {}, {"scale": torch.tensor(2.0)}

    def forward(self, x):
        if "bias" not in self.cache:
            self.cache["bias"] = self.table * 3
        return self.linear(x) * self.constants["scale"] + self.cache["bias"]


def test_training_forgets_what_a_model_derived_from_its_weights():
    torch.manual_seed(0)
    teacher, student, batch = Cached(), Cached(), torch.randn(2, 4)
    samples = Samples([batch], lambda items: torch.cat(list(items)))
    before = student.table.detach().clone()
    student(batch)  # a cache with a graph, as scoring or an evaluation may leave it
    settings = Training.of({**COMMON, "epochs": 3, "align_epochs": 0, "accumulate": 1, "lr": 1e-2})
    distil(student, {"original": teacher}, Distil("d", OUTPUT), samples, lambda *_, **k: (), settings, lambda *_: None)
    copy.deepcopy(student)  # as the next stage's teacher, which a graph in the cache would refuse
    assert not torch.equal(student.table, before)
    assert student.constants == {"scale": torch.tensor(2.0)}
    fresh = Cached()
    fresh.load_state_dict(student.state_dict())
    torch.testing.assert_close(student(batch), fresh(batch))


def test_caches_are_told_from_constants():
    model = Cached()
    model(torch.randn(1, 4))
    assert remade(model, lambda: model(torch.randn(1, 4))) == [model.cache]
    assert not model.cache
    assert model.constants


def test_a_feature_may_be_overwritten_in_place():
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 2))
    student, batch, tap = copy.deepcopy(teacher), torch.randn(3, 4), Tap("0", "output")
    with torch.no_grad():
        student[0].weight += 0.1
    terms = (Term("hidden", ("h",), aligning=True), *OUTPUT)
    found = term_losses(student, {"original": teacher}, terms, {"hidden": [tap], "output": []}, 0.5, batch)
    expected = (student[0](batch) - teacher[0](batch)).square().mean()
    torch.testing.assert_close(found["hidden"], expected)
    sum(found.values()).backward()
    assert student[0].weight.grad.abs().sum() > 0


def test_settings_about_groups_that_are_left_out_are_dropped():
    groups = structure(vit().model).groups
    mlp = [group for group in groups if group.role == MLP]
    pools = ((EMBEDDING, "mlp.*"), (ATTENTION,))
    about = conditions(align={mlp[0].name: 4, EMBEDDING: 3}, pools=pools, min_ratio={MLP: 0.1}).about(mlp).options
    assert about.choice.align == {mlp[0].name: 4}
    assert about.choice.pools == [["mlp.*"]]
    assert about.scope.min_ratio == {MLP: 0.1}
    assert narrowed(0.5, mlp) == 0.5
    assert narrowed({EMBEDDING: 0.5, "mlp.*": 0.2}, mlp) == {"mlp.*": 0.2}


class Picky(nn.Module):
    """Its own code does not follow when the second hidden width shrinks."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(5, 12), nn.Linear(12, 16), nn.Linear(16, 4)

    def forward(self, x):
        x = self.second(self.first(x).relu()).relu()
        if x.shape[-1] < 16:
            raise ValueError("too narrow")
        return self.head(x)


HALF_OF_EACH = {"ratio": {"first*": 0.5, "second*": 0.5}}


@pytest.mark.parametrize("goal", [HALF_OF_EACH, {"ratio": 0.5}, {"target": "params<=80%"}])
def test_a_group_that_is_refused_takes_its_alignment_and_ratio_along(goal):
    model = Picky()
    found = structure_of(model, one_sample(5))
    align = {group.name: 3 if group.name.startswith("first") else 4 for group in found.groups}
    made = draft(model, found, Options.of(**goal, align=align, ranking="global", pools=((MLP,),)))
    assert {width.group: width.after for width in made.plan.widths if width.after < width.before}.keys() == {
        "first.weight:0"
    }
    assert [frozen.name for frozen in made.plan.frozen if "second" in frozen.name] == ["second.weight:0"]


def test_a_ratio_that_names_nothing_is_still_refused():
    recipe = Recipe("r", "", (Prune("p"),), {**COMMON, "images": 1, "val_images": 1, "latency": False})
    with pytest.raises(InputError, match="matches no group"):
        run(vit(), recipe, Magnitude(), ratio={"mlp.hiden": 0.5})
