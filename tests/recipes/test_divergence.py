"""Distillation on logits: the divergence of a place, its temperature, and the classes that are told apart."""

import math

import pytest
import torch
from torch import nn

from prunekit.errors import RecipeError
from prunekit.recipes import COMMON, Distil, Term, override
from prunekit.recipes.minitron import MINITRON
from prunekit.recipes.records import Training
from prunekit.runs.distillation import distil, losses
from prunekit.runs.distillation.losses import divergence
from prunekit.samples import Samples

MINE = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
THEIRS = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(1)) * 3


def plain(mine, theirs):
    """Sum of p log(p / q) in one place."""
    p, q = theirs.double().softmax(-1), mine.double().softmax(-1)
    return float((p * (p / q).log()).sum(-1).mean())


def test_it_is_the_mean_over_places():
    assert float(divergence(MINE, THEIRS)) == pytest.approx(plain(MINE, THEIRS), rel=1e-5)
    assert float(divergence(THEIRS, THEIRS)) == pytest.approx(0, abs=1e-6)


def test_temperature_divides_the_logits_and_keeps_the_size_of_the_gradient():
    assert float(divergence(MINE, THEIRS, 2.0)) == pytest.approx(4 * plain(MINE / 2, THEIRS / 2), rel=1e-5)
    sizes = []
    for temperature in (50.0, 100.0):
        mine = MINE.clone().requires_grad_()
        divergence(mine, THEIRS, temperature).backward()
        sizes.append(float(mine.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_the_likeliest_count_one_by_one_and_the_rest_as_one():
    p, q = THEIRS[0, 0].double().softmax(-1), MINE[0, 0].double().softmax(-1)
    first = p.topk(2).indices
    pairs = [(float(p[k]), float(q[k])) for k in first]
    pairs.append((1 - sum(a for a, _ in pairs), 1 - sum(b for _, b in pairs)))
    wanted = sum(a * math.log(a / b) for a, b in pairs)
    assert float(divergence(MINE[:1, :1], THEIRS[:1, :1], top=2)) == pytest.approx(wanted, rel=1e-4)
    found = [float(divergence(MINE, THEIRS, top=top)) for top in (1, 2, 4, 6, 7, 100, 0)]
    assert found == sorted(found)
    assert found[3:] == pytest.approx([found[-1]] * 4, rel=1e-4)


def test_a_tail_of_no_weight_gives_no_infinity():
    sure = torch.full((1, 7), -200.0)
    sure[0, 0] = 200.0
    mine = MINE[0, :1].clone().requires_grad_()
    found = divergence(mine, sure, top=3)
    found.backward()
    assert torch.isfinite(found)
    assert torch.isfinite(mine.grad).all()
    back = divergence(sure.requires_grad_(), MINE[0, :1], top=3)
    back.backward()
    assert torch.isfinite(sure.grad).all()


def test_settings_reach_the_loss(monkeypatch):
    seen = []

    def heard(mine, theirs, temperature, top):
        seen.append((temperature, top))
        return divergence(mine, theirs, temperature, top)

    monkeypatch.setattr(losses, "divergence", heard)
    torch.manual_seed(0)
    student, teacher = nn.Linear(4, 9), nn.Linear(4, 9)
    stage = Distil("on logits", (Term("logits", loss="kl"),))
    settings = {**COMMON, "epochs": 1, "align_epochs": 0, "batch": 2, "accumulate": 1}
    asked = override(MINITRON, {"temperature": "2", "top_logits": "3"}).settings
    settings |= {name: asked[name] for name in ("temperature", "top_logits")}
    samples = Samples(list(torch.randn(4, 4)), lambda rows: torch.stack(list(rows)))
    distil(student, {"original": teacher}, stage, samples, lambda *_, **k: (), Training.of(settings), lambda *_: None)
    assert set(seen) == {(2.0, 3)}


@pytest.mark.parametrize(("name", "text"), [("temperature", "0"), ("temperature", "nan"), ("top_logits", "-1")])
def test_what_no_divergence_can_be_taken_with(name, text):
    with pytest.raises(RecipeError, match=name):
        override(MINITRON, {name: text})


def test_the_cosine_of_a_term_is_that_of_a_place_and_blind_to_size():
    term = Term("hidden states", loss="cosine")
    wanted = 1 - nn.functional.cosine_similarity(MINE.double(), THEIRS.double(), -1).mean()
    assert float(losses.between(term, MINE, THEIRS)) == pytest.approx(float(wanted), abs=1e-6)
    assert float(losses.between(term, 7 * THEIRS, THEIRS)) == pytest.approx(0, abs=1e-6)
