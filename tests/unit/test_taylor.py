"""Taylor and DisturbedTaylor: products weight x gradient against plain loops, and what noise and outputs change."""

from __future__ import annotations

import pytest
import torch
from support.scoring import (
    CASES,
    CHANNELS,
    DIM,
    HEAD,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    LINEAR,
    Attention,
    Conv,
    Outputs,
    close,
    identity,
    images,
    make,
    plain_reduction,
    tokens,
)
from torch import nn

from prunekit.coupling.groups import Group, Member
from prunekit.errors import ScorerError
from prunekit.inputs import Inputs, Sample
from prunekit.scorers import DisturbedTaylor, Magnitude, Statistics, Taylor
from prunekit.scorers.calibrate import checksum, gradients


def plain_products(model, samples, loss_of, accumulation) -> dict[str, torch.Tensor]:
    """Products by .backward(), one image at a time."""
    model.eval()
    collected: dict[str, list[torch.Tensor]] = {name: [] for name, _ in model.named_parameters()}
    for sample in samples:
        model.zero_grad()
        loss_of(sample).backward()
        for name, p in model.named_parameters():
            collected[name].append(torch.zeros_like(p) if p.grad is None else p.grad.clone())
    found = {}
    for name, p in model.named_parameters():
        g = torch.stack(collected[name])
        w = p.detach()
        if accumulation == "abs":
            found[name] = (w * g).abs().mean(0)
        elif accumulation == "squared":
            found[name] = (w * g).pow(2).mean(0).sqrt()
        else:
            found[name] = (w * g.sum(0)).abs()
    return found


@pytest.mark.parametrize(("kind", "group", "samples"), CASES)
@pytest.mark.parametrize("accumulation", ["abs", "squared", "signed"])
def test_taylor_against_loops(kind, group, samples, accumulation):
    def loss(output, target):
        return nn.functional.cross_entropy(output.flatten(1), target)

    data = samples(3)
    ours = Taylor(loss, accumulation).score(group, Statistics(make(kind), data))
    model = make(kind)
    products = plain_products(model, data, lambda s: loss(model(*s.inputs.args), s.target), accumulation)
    assert close(ours, plain_reduction(group, products))
    assert ours.std() > 0


@pytest.mark.parametrize(("kind", "group", "samples"), CASES)
@pytest.mark.parametrize("accumulation", ["abs", "squared", "signed"])
def test_disturbed_taylor_against_a_teacher_and_a_student(kind, group, samples, accumulation):
    """Eq. 4 as it is written: a frozen teacher, noise on its output, the MSE of the student."""
    data, sigma, seed = samples(3), 0.01, 5
    ours = DisturbedTaylor(sigma, accumulation, seed=seed).score(group, Statistics(make(kind), data))
    student, teacher = make(kind), make(kind).eval()

    def loss(sample):
        with torch.no_grad():
            target = teacher(*sample.inputs.args)
        key = (checksum(sample.inputs) + 0x632BE59BD9B4E019 * seed) % 2**63
        noise = sigma * torch.randn(target.shape, generator=torch.Generator().manual_seed(key))
        return nn.functional.mse_loss(student(*sample.inputs.args), target + noise)

    products = plain_products(student, data, loss, accumulation)
    reference = torch.tensor(plain_reduction(group, products), dtype=torch.float64)
    # The target plus noise is rounded in the reference: float32 of values near 1 under noise of 0.01.
    assert torch.allclose(ours, reference, rtol=2e-3, atol=0)


def test_the_order_of_images_does_not_matter_and_repeats_get_their_own_noise():
    data = images(4)
    one = DisturbedTaylor().score(CHANNELS, Statistics(make(Conv), data))
    two = DisturbedTaylor().score(CHANNELS, Statistics(make(Conv), data[::-1]))
    assert torch.allclose(one, two, rtol=1e-5)
    once = DisturbedTaylor().score(CHANNELS, Statistics(make(Conv), data[:1]))
    twice = DisturbedTaylor().score(CHANNELS, Statistics(make(Conv), data[:1] * 2))
    assert not torch.allclose(once, twice, rtol=1e-3)


def test_sigma_scales_every_score_and_changes_no_ranking():
    model, data = make(Conv), images(2)
    one = DisturbedTaylor(0.01).score(CHANNELS, Statistics(model, data))
    ten = DisturbedTaylor(0.1).score(CHANNELS, Statistics(model, data))
    assert torch.allclose(ten, 10 * one, rtol=1e-4)


def test_the_first_images_only():
    data = images(4)
    assert torch.equal(
        DisturbedTaylor(images=2).score(CHANNELS, Statistics(make(Conv), data)),
        DisturbedTaylor().score(CHANNELS, Statistics(make(Conv), data[:2])),
    )


def test_half_precision_does_not_underflow():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 6), nn.Linear(6, 200_000)

        def forward(self, x):
            return self.b(self.a(x).tanh())

    group = Group("a.weight:0", "channels", 6, (Member("a.weight", 0, identity(6)), Member("b.weight", 1, identity(6))))
    full, half = make(Wide), make(Wide).half()
    data = images(1, (1, 8))
    less = [Sample(Inputs((data[0].inputs.args[0].half(),)))]
    same_values = [Sample(Inputs((less[0].inputs.args[0].float(),)))]
    expected = DisturbedTaylor().score(group, Statistics(full, same_values))
    found = DisturbedTaylor().score(group, Statistics(half, less))
    assert torch.allclose(found, expected, rtol=0.02)


def test_an_overflowing_scale_is_lowered():
    w = torch.ones(3, dtype=torch.float16, requires_grad=True)
    (g,) = gradients((w * 100).float().sum(), [w], (2.0**24, 1.0))
    assert torch.equal(g, torch.full((3,), 100.0))


@pytest.mark.parametrize(
    "choose",
    [
        lambda y: (y, y.argmax(-1)),
        lambda y: {"logits": y, "again": y},
        lambda y: [{"deep": (y,)}, None, torch.ones(3)],
    ],
)
def test_any_tree_of_outputs_counts_its_floating_tensors_once(choose):
    torch.manual_seed(0)
    model = Outputs(choose)
    plain = Outputs(lambda y: y)
    plain.load_state_dict(model.state_dict())
    data = images(2, (1, 4))
    assert torch.equal(
        DisturbedTaylor().score(LINEAR, Statistics(model, data)),
        DisturbedTaylor().score(LINEAR, Statistics(plain, data)),
    )


def test_the_output_hook_chooses():
    data = images(2, (1, 4))
    torch.manual_seed(0)
    model = Outputs(lambda y: {"small": y[:, :1], "all": y})
    scores = DisturbedTaylor(output=lambda out: out["small"]).score(LINEAR, Statistics(model, data))
    assert scores[0] > 0
    assert scores[1] == scores[2] == 0


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda y: y.argmax(-1), "no floating output"),
        (lambda y: y.detach(), "no output depends"),
    ],
)
def test_nothing_to_disturb(choose, message):
    with pytest.raises(ScorerError, match=message):
        DisturbedTaylor().score(LINEAR, Statistics(Outputs(choose), images(1, (1, 4))))


def test_what_taylor_asks_for():
    statistics = Statistics(make(Conv), [Sample(s.inputs) for s in images(1)])
    with pytest.raises(ScorerError, match="DisturbedTaylor"):
        Taylor().score(CHANNELS, statistics)
    with pytest.raises(ScorerError, match="without a target"):
        Taylor(nn.functional.cross_entropy).score(CHANNELS, statistics)
    with pytest.raises(ScorerError, match="scalar"):
        Taylor(lambda output, target: output).score(CHANNELS, statistics)
    with pytest.raises(ScorerError, match="does not depend"):
        Taylor(lambda output, target: output.detach().sum()).score(CHANNELS, statistics)
    with pytest.raises(ScorerError, match="no calibration sample"):
        Taylor(nn.functional.cross_entropy).score(CHANNELS, Statistics(make(Conv)))


def test_permuting_heads_permutes_head_scores_and_leaves_head_dim_scores():
    """The reference code of SlimSAM scores head 0 only."""
    order = torch.tensor([2, 0, 1])
    rows_of = torch.arange(HEADS * DIM).reshape(HEADS, DIM)[order].flatten()
    fused = (torch.arange(3)[:, None] * HEADS * DIM + rows_of).flatten()
    model, permuted = make(Attention), make(Attention)
    with torch.no_grad():
        permuted.qkv.weight.copy_(model.qkv.weight[fused])
        permuted.qkv.bias.copy_(model.qkv.bias[fused])
        permuted.proj.weight.copy_(model.proj.weight[:, rows_of])
    for scorer in (Magnitude(), DisturbedTaylor()):
        one, two = (Statistics(m, tokens(3)) for m in (model, permuted))
        assert torch.allclose(scorer.score(HEAD_DIM, one), scorer.score(HEAD_DIM, two), rtol=1e-4)
        assert torch.allclose(scorer.score(HEAD, one)[order], scorer.score(HEAD, two), rtol=1e-4)
        assert scorer.score(HEAD, one).std() > 0


def spearman(one: torch.Tensor, two: torch.Tensor) -> float:
    ranks = torch.stack([one.argsort().argsort(), two.argsort().argsort()]).double()
    return float(torch.corrcoef(ranks)[0, 1])


@pytest.mark.parametrize(("accumulation", "converges"), [("abs", True), ("squared", True), ("signed", False)])
def test_two_noise_seeds_agree_more_with_more_images(accumulation, converges):
    """slimsam.md section 3: absolute and squared products converge, the reference code's signed sum does not."""
    model, data = make(Attention), tokens(64)
    agreement = []
    for count in (4, 64):
        pairs = [
            [
                DisturbedTaylor(seed=seed, accumulation=accumulation, images=count).score(
                    HIDDEN, Statistics(model, data, parameters=["fc1.weight", "fc1.bias", "fc2.weight"])
                )
                for seed in (2 * i, 2 * i + 1)
            ]
            for i in range(3)
        ]
        agreement.append(sum(spearman(*pair) for pair in pairs) / len(pairs))
    if converges:
        assert agreement[1] > agreement[0]
        assert agreement[1] > 0.97
    else:
        assert agreement[1] < 0.9
