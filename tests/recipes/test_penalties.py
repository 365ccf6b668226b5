"""Penalties against plain loops, and what training with them does to the units that go."""

from __future__ import annotations

import copy
import functools

import pytest
import torch

import prunekit
from prunekit.errors import RecipeError
from prunekit.recipes import COMMON, Distil, Evaluate, Prune, Recipe, Term
from prunekit.registry import build
from prunekit.runs import run
from prunekit.runs.penalties import penalty
from prunekit.scorers import Magnitude

OUTPUT = (Term("output"),)


def network():
    torch.manual_seed(0)
    return build("timm:resnet10t", plugins=[], num_classes=3)


def unit_squares(model, group):
    weights = dict(model.named_parameters())
    found = []
    for unit in range(group.size):
        total = 0.0
        for member in group.parameters:
            for coordinate in member.coordinates(unit).tolist():
                total += float(weights[member.tensor].detach().select(member.axis, coordinate).double().square().sum())
        found.append(total)
    return found


@pytest.fixture(scope="module")
def given():
    model = network().model
    structure = prunekit.trace(model, torch.zeros(1, 3, 64, 64))
    return model, sorted(structure.groups, key=lambda g: g.size)[:3]


def test_group_lasso_against_loops(given):
    model, groups = given
    wanted = sum(square**0.5 for group in groups for square in unit_squares(model, group))
    assert float(penalty("group_lasso", model, groups, {})(1.0).detach()) == pytest.approx(wanted, rel=1e-5)


def test_batch_norm_scale_against_loops(given):
    model, groups = given
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    wanted = sum(abs(value) for norm in norms for value in norm.weight.tolist())
    assert float(penalty("batch_norm_scale", model, groups, {})(1.0).detach()) == pytest.approx(wanted, rel=1e-6)


def test_growing_against_loops_grows_with_time_and_reaches_doomed_units_only(given):
    model, groups = given
    doomed = {groups[0].name: torch.tensor([1, 4])}
    made = penalty("growing", model, groups, doomed)
    squares = unit_squares(model, groups[0])
    for t in (0.25, 1.0):
        assert float(made(t).detach()) == pytest.approx(t / 2 * (squares[1] + squares[4]), rel=1e-5)
    model.zero_grad()
    made(1.0).backward()
    for name, weight in model.named_parameters():
        members = [m for m in groups[0].parameters if m.tensor == name]
        assert (weight.grad is not None) == bool(members), name
        for member in members[:1]:
            reached = weight.grad.movedim(member.axis, 0).reshape(len(member.unit_of), -1).abs().sum(1)
            units = set(member.unit_of[reached > 0].tolist())
            assert units <= {1, 4} or len(members) > 1


def test_what_does_not_apply_is_refused(given):
    model, groups = given
    with pytest.raises(RecipeError, match="unknown penalty"):
        penalty("lasso", model, groups, {})
    with pytest.raises(RecipeError, match="takes no unit"):
        penalty("growing", model, groups, {})
    with pytest.raises(RecipeError, match="no batch norm"):
        penalty("batch_norm_scale", torch.nn.Linear(2, 2), groups, {})


def recipe(kind, strength):
    stages = (Distil("sparsify", OUTPUT, penalty=kind), Evaluate("x", "before"), Prune("prune"), Evaluate("y", "after"))
    settings = {**COMMON, "images": 2, "train_images": 8, "val_images": 4, "epochs": 12, "batch": 4, "accumulate": 1}
    return Recipe("r", "", stages, {**settings, "lr": 2e-3, "penalty": strength, "latency": False, "align_epochs": 0})


@functools.cache
def changed_by_a_cut(kind, strength):
    """How far the cut moves the outputs, relative to their size, over two networks: one alone says little."""
    options = {"img_size": 32, "patch_size": 8, "depth": 2, "num_classes": 5, "embed_dim": 48, "num_heads": 3}
    moved = 0.0
    for seed in (1, 2):
        torch.manual_seed(seed)
        built = build("timm:vit_tiny_patch16_224", plugins=[], **options)
        trained = []

        def listen(event, built=built, trained=trained):
            if event.stage == 1 and not trained:  # between training and the cut
                trained.append(copy.deepcopy(built.model))

        result = run(built, recipe(kind, strength), Magnitude(), ratio={"mlp.hidden": 0.75}, listen=listen)
        x = torch.randn(32, 3, 32, 32)
        with torch.no_grad():
            before, after = trained[0].eval()(x), result.model.eval()(x)
        moved += float((after - before).norm() / before.norm())
    return moved


@pytest.mark.parametrize(("kind", "strength"), [("group_lasso", 1e-2), ("growing", 0.3)])
def test_a_cut_after_the_penalty_changes_less_than_the_same_cut_without(kind, strength):
    assert changed_by_a_cut(kind, strength) < 0.7 * changed_by_a_cut("group_lasso", 0.0)


def test_a_penalty_without_a_later_cut_is_refused():
    stages = (Prune("prune"), Distil("sparsify", OUTPUT, penalty="group_lasso"))
    settings = {**COMMON, "images": 1, "train_images": 1, "val_images": 1, "epochs": 1, "latency": False}
    with pytest.raises(RecipeError, match="none follows"):
        run(network(), Recipe("r", "", stages, settings), Magnitude())
