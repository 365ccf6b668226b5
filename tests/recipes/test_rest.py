"""Losses through what follows the part: compared after the rest of the model has answered, which is never trained."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from prunekit.errors import InputError, RecipeError
from prunekit.plugins import ModelEntry
from prunekit.recipes import COMMON, Distil, Prune, Recipe, Term
from prunekit.registry import Built
from prunekit.runfiles import read_recipe, recipe_text
from prunekit.runs import run
from prunekit.runs.distillation import term_losses
from prunekit.runs.distillation.losses import logistic
from prunekit.scorers import Magnitude

ANSWERS = Term("answers", read="rest", factor=3.0, loss="bce")
SIZES = {"images": 2, "train_images": 4, "val_images": 2, "epochs": 2, "align_epochs": 1}
SETTINGS = {**COMMON, **SIZES, "latency": False, "lr": 0.01}


class TwoParts(nn.Module):
    """An encoder, and a head that reads its output and a question."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 4, 3, 2), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.head = nn.Bilinear(16, 5, 7)

    def forward(self, x):
        return self.head(self.encoder(x), x.new_ones(len(x), 5))


def ask(model, output, seed):
    question = torch.rand(len(output), 5, generator=torch.Generator().manual_seed(seed))
    return model.head(output, question)


def built(answers=ask):
    torch.manual_seed(0)
    entry = ModelEntry(lambda checkpoint: TwoParts(), part="encoder", rest=None, answers=answers)
    return Built(TwoParts().eval(), "python:nowhere:model", {}, entry, None)


def recipe(*terms):
    return Recipe("r", "two parts", (Prune("cut"), Distil("distil", terms)), SETTINGS)


def slimmed(photos, *terms, **given):
    model = built(**given)
    before = copy.deepcopy(model.model.head.state_dict())
    found = run(model, recipe(*terms), Magnitude(), ratio=0.5, data=photos)
    return found, before


@pytest.fixture
def photos(tmp_path):
    for number in range(4):
        torch.manual_seed(number)
        pixels = (torch.rand(32, 32, 3) * 255).byte().numpy()
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


def test_the_rest_teaches_and_is_not_taught(photos):
    found, head = slimmed(photos, Term("output"), ANSWERS)
    losses = found.report["stages"][-1]
    assert losses["answers"] > 0
    assert losses["loss"] == pytest.approx(losses["output"] + 3 * losses["answers"], rel=1e-5)
    for name, value in found.model.head.state_dict().items():
        assert torch.equal(value, head[name]), name
    assert all(p.requires_grad and p.grad is None for p in found.model.head.parameters())


def test_what_it_teaches_differs_from_what_the_output_alone_teaches(photos):
    with_answers, _ = slimmed(photos, Term("output"), ANSWERS)
    without, _ = slimmed(photos, Term("output"))
    same = with_answers.model.encoder[0].weight, without.model.encoder[0].weight
    assert same[0].shape == same[1].shape
    assert not torch.equal(*same)


def test_two_runs_ask_the_same(photos):
    first, _ = slimmed(photos, ANSWERS)
    second, _ = slimmed(photos, ANSWERS)
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))


def test_a_model_that_cannot_be_asked_goes_without(photos, caplog):
    found, _ = slimmed(photos, Term("output"), ANSWERS, answers=None)
    assert "answers" not in found.report["stages"][-1]
    assert "answers is not compared" in caplog.text
    with pytest.raises(RecipeError, match="no term"):
        slimmed(photos, ANSWERS, answers=None)


def losses_of(student, teacher, model, indices):
    batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    asked = []

    def rest(output, seed):
        asked.append(seed)
        return ask(model, output, seed)

    taps = {"answers": ()}
    found = term_losses(student, {"original": teacher}, (ANSWERS,), taps, 0.0, batch, indices, rest=rest)
    return found["answers"], asked


def test_student_and_teacher_are_asked_the_same_and_every_batch_something_else():
    model = built().model
    equal, asked = losses_of(copy.deepcopy(model.encoder), model.encoder, model, [0, 1])
    assert float(equal.detach()) == 0
    assert asked[0] == asked[1]
    assert losses_of(model.encoder, model.encoder, model, [1, 3])[1] != asked
    student = copy.deepcopy(model.encoder)
    with torch.no_grad():
        student[0].weight += 0.3
    loss, _ = losses_of(student, model.encoder, model, [0, 1])
    loss.backward()
    assert float(loss.detach()) > 0
    assert student[0].weight.grad.abs().sum() > 0
    assert model.encoder[0].weight.grad is None


def test_features_of_roles_are_not_what_the_rest_reads():
    with pytest.raises(RecipeError, match="the rest of a model reads outputs"):
        replace(ANSWERS, roles=("embedding",))


def test_bernoulli_divergence_is_that_of_torch_distributions():
    mine, theirs = torch.randn(3, 4), torch.randn(3, 4)
    kl = torch.distributions.kl_divergence
    wanted = kl(torch.distributions.Bernoulli(logits=theirs), torch.distributions.Bernoulli(logits=mine)).mean()
    torch.testing.assert_close(logistic(mine, theirs), wanted, rtol=1e-4, atol=1e-6)
    assert float(logistic(mine, mine)) == 0


def test_a_recipe_file_says_it_and_reads_it_back(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(recipe_text(recipe(Term("output"), ANSWERS)))
    assert "read: rest" in file.read_text()
    assert read_recipe(file).stages[1].terms == (Term("output"), ANSWERS)
    for wrong in ("0", "-1", ".nan", ".inf", "much"):
        file.write_text(file.read_text().replace("factor: 3.0", f"factor: {wrong}"))
        with pytest.raises(InputError, match="factor"):
            read_recipe(file)
        file.write_text(file.read_text().replace(f"factor: {wrong}", "factor: 3.0"))
