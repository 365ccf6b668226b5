"""Distillation on a small transformer: every term counts, teachers stay frozen, hooks go away."""

from __future__ import annotations

import copy

import pytest
import torch

from prunekit.coupling.groups import Tap
from prunekit.errors import RecipeError
from prunekit.recipes import COMMON, Distil, Falling, Term
from prunekit.recipes.records import Training
from prunekit.registry import build
from prunekit.runs.distillation import distil, term_losses
from prunekit.runs.features import tapped
from prunekit.samples import Samples

TAPS = {
    "hidden": (Tap("blocks.0.attn.qkv", "output"), Tap("blocks.1.mlp.fc1", "output")),
    "stream": (Tap("blocks.0.norm1", "input"), Tap("blocks.1.norm2", "input")),
}
STAGE = Distil(
    "align",
    (
        Term("hidden", roles=("hidden",), aligning=True),
        Term("stream", roles=("stream",), teacher="previous", aligning=True),
        Term("output"),
    ),
    Falling(),
)
SETTINGS = Training.of({**COMMON, "epochs": 6, "align_epochs": 4, "batch": 2, "accumulate": 1, "lr": 1e-3})


def taps_of(roles, *, where="written"):
    return [tap for role in roles for tap in TAPS.get(role, ())]


def models():
    torch.manual_seed(0)
    teacher = build(
        "timm:vit_tiny_patch16_224", plugins=[], img_size=32, patch_size=8, depth=2, num_classes=5, embed_dim=48
    ).model
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return teacher, student


def samples(count=4):
    generator = torch.Generator().manual_seed(1)
    items = [torch.randn(1, 3, 32, 32, generator=generator) for _ in range(count)]
    return Samples(items, lambda chosen: torch.cat(list(chosen)))


def losses(teacher, student, alpha=0.5):
    taps = {term.name: taps_of(term.roles) for term in STAGE.terms}
    return term_losses(
        student, {"original": teacher, "previous": teacher}, STAGE.terms, taps, alpha, samples().batch([0, 1])
    )


def test_every_term_is_positive_and_has_a_gradient():
    teacher, student = models()
    found = losses(teacher, student)
    assert set(found) == {"hidden", "stream", "output"}
    for name, loss in found.items():
        assert float(loss.detach()) > 0, name
        student.zero_grad()
        loss.backward(retain_graph=True)
        reached = [n for n, p in student.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
        assert any(n.startswith("blocks.0.attn.qkv") or n.startswith("patch_embed") for n in reached), name


def test_a_student_that_is_its_teacher_loses_nothing():
    teacher, _ = models()
    assert all(float(loss.detach()) == 0 for loss in losses(teacher, copy.deepcopy(teacher)).values())


@pytest.mark.parametrize(("alpha", "terms"), [(0.0, {"output"}), (1.0, {"hidden", "stream"})])
def test_terms_without_weight_are_not_computed(alpha, terms):
    assert set(losses(*models(), alpha)) == terms


def test_it_learns_and_touches_nothing_but_the_student():
    teacher, student = models()
    frozen = copy.deepcopy(teacher.state_dict())
    before = float(losses(teacher, student)["output"].detach())
    seen = []
    distil(
        student,
        {"original": teacher, "previous": teacher},
        STAGE,
        samples(),
        taps_of,
        SETTINGS,
        lambda done, total, figures: seen.append((done, total)),
    )
    assert float(losses(teacher, student)["output"].detach()) < 0.8 * before
    assert seen == [(step, 12) for step in range(13)]
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, frozen[name])
    for model in (teacher, student):
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        assert not model.training
    assert all(p.grad is None for p in teacher.parameters())


def test_the_same_seed_gives_the_same_student():
    states = []
    for _ in range(2):
        teacher, student = models()
        both = {"original": teacher, "previous": teacher}
        distil(student, both, STAGE, samples(), taps_of, SETTINGS, lambda *_: None)
        states.append(student.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])


def test_a_loss_that_is_not_finite_stops_the_run():
    teacher, student = models()
    with torch.no_grad():
        student.head.bias.fill_(float("nan"))
    both = {"original": teacher, "previous": teacher}
    with pytest.raises(RecipeError, match="not finite"):
        distil(student, both, STAGE, samples(), taps_of, SETTINGS, lambda *_: None)
    assert not any(m._forward_hooks for m in student.modules())


def test_features_of_other_widths_are_named():
    teacher, student = models()
    student.blocks[1].mlp.fc1 = torch.nn.Linear(48, 96)
    student.blocks[1].mlp.fc2 = torch.nn.Linear(96, 48)
    with pytest.raises(RecipeError, match=r"blocks\.1\.mlp\.fc1"):
        losses(teacher, student)


def test_a_role_without_features_is_named():
    teacher, student = models()
    stage = Distil("align", (Term("x", roles=("nowhere",), aligning=True),))
    with pytest.raises(RecipeError, match="nowhere"):
        distil(student, {"original": teacher}, stage, samples(), taps_of, SETTINGS, lambda *_: None)


def test_hooks_go_even_when_a_module_is_missing():
    teacher, _ = models()
    with (
        pytest.raises(RecipeError, match="no_such"),
        tapped(teacher, [*TAPS["hidden"], Tap("no_such", "input")], print),
    ):
        pass
    assert not any(m._forward_hooks for m in teacher.modules())
