"""Teachers are run once a sample where that can be remembered, and what they give is what they would have given."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunekit.coupling.groups import Tap
from prunekit.recipes.stages import Term
from prunekit.runs.distillation.checkpointing import blocks_of, recomputed
from prunekit.runs.distillation.disk_store import Disk
from prunekit.runs.distillation.losses import mean_square, term_losses
from prunekit.runs.distillation.teachers import Memory, Teacher

TAPS = (Tap("body.0", "output"), Tap("body.2", "input"))


class Counting(nn.Module):
    """Two layers, and how many samples were run."""

    def __init__(self, mixes=False):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
        self.mixes, self.ran = mixes, 0

    def forward(self, x):
        self.ran += len(x)
        x = x - x.mean(0) if self.mixes else x
        return self.body(x)


X = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
ORDERS = ([0, 1], [2, 3], [4], [3, 0], [1, 4], [2])


def asked(teacher, order, taps=TAPS):
    features, finals = teacher(X[order], taps, order)
    return [*(value for tap in taps for value in features[tap]), *finals]


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_sample_is_run_once(tmp_path, kind):
    model, plain = Counting(), Counting()
    teacher = Teacher(model, Memory() if kind == "memory" else Disk(tmp_path), limit=10**6, count=5)
    tolerance = 1e-6 if kind == "memory" else 2e-3
    for order in ORDERS:
        for found, wanted in zip(asked(teacher, order), asked(Teacher(plain), order), strict=True):
            torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)
    # one sample to learn the sizes, and one batch to see that its rows are what they are alone
    assert model.ran == 5 + 1 + 2


def test_what_is_asked_again_is_the_same_to_the_bit_on_disk_too(tmp_path):
    teacher = Teacher(Counting(), Disk(tmp_path), limit=10**6, count=5)
    first = asked(teacher, [0, 1])
    again = asked(Teacher(Counting(), Disk(tmp_path), limit=10**6, count=5), [0, 1])
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_callers_may_write_into_features():
    teacher = Teacher(Counting(), Memory(), limit=10**6, count=5)
    wanted = [value.clone() for value in asked(teacher, [2])]
    for value in asked(teacher, [2]):
        value.zero_()
    assert torch.equal(asked(teacher, [2])[0], wanted[0])


@pytest.mark.parametrize(("limit", "ran"), [(5 * 4 * 15, 5 + 1 + 2), (5 * 4 * 3, 15 + 1), (5 * 4 * 3 - 1, 15 + 1)])
def test_features_are_given_up_before_outputs(limit, ran):
    # a sample has 12 + 3 floats; with room for the outputs alone, features are made anew with every batch
    model = Counting()
    teacher = Teacher(model, Memory(), limit=limit, count=5)
    for order in [[0, 1], [2, 3], [4]] * (1 if ran == 8 else 3):
        asked(teacher, order)
    assert model.ran == ran
    before = model.ran
    for order in [[0, 1], [2, 3], [4]] * 2:
        teacher(X[order], (), order)
    # outputs: remembered already, or now with their own batch to compare, or not at all
    assert model.ran - before == {5 * 4 * 15: 0, 5 * 4 * 3: 5 + 2, 5 * 4 * 3 - 1: 10}[limit]


def test_one_pass_is_not_worth_remembering_features_for():
    model = Counting()
    teacher = Teacher(model, Memory(), limit=10**6, count=5, epochs=1)
    for order in [[0, 1], [2, 3], [4]]:
        asked(teacher, order)
    assert model.ran == 5 + 1


def test_a_teacher_that_mixes_samples_is_run_on_every_batch():
    teacher = Teacher(Counting(mixes=True), Memory(), limit=10**6, count=5)
    for order in ORDERS:
        for found, wanted in zip(asked(teacher, order), asked(Teacher(Counting(mixes=True)), order), strict=True):
            torch.testing.assert_close(found, wanted)


def test_the_mean_square_and_its_gradient_are_torchs_and_use_the_teachers_memory():
    feature = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    wanted = torch.randn(3, 4, dtype=torch.float64)
    theirs = nn.functional.mse_loss(feature, wanted)
    (gradient,) = torch.autograd.grad(theirs, feature)
    used = wanted.clone()
    mine = mean_square(feature, used)
    assert float((mine - theirs).detach()) == pytest.approx(0, abs=1e-14)
    torch.testing.assert_close(used, (feature - wanted).detach())
    torch.testing.assert_close(torch.autograd.grad(mine, feature)[0], gradient)


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 4)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.GELU()) for _ in range(3)])
        self.ran = 0
        self.blocks[1][0].register_forward_hook(lambda *_: setattr(self, "ran", self.ran + 1))

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return x


def test_blocks_are_found_run_again_and_left_as_they_were():
    model, twin = Stack(), Stack()
    assert blocks_of(model) == list(model.blocks)
    terms = (Term("f", roles=("x",), aligning=True), Term("output"))
    taps = {"f": (Tap("blocks.0.0", "output"), Tap("blocks.2.0", "input")), "output": ()}
    other = Stack()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    gradients = []
    for student, wanted in ((model, True), (twin, False)):
        with recomputed(student, wanted):
            losses = term_losses(student, {"original": other}, terms, taps, 0.5, X, late=wanted)
            torch.stack(list(losses.values())).sum().backward()
        gradients.append([p.grad for p in student.parameters()])
    assert model.ran == 1 + 1  # forward, and again backward: hooks of the user's own are heard twice
    assert twin.ran == 1
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert not any("forward" in vars(module) for module in model.modules())
