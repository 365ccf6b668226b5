from __future__ import annotations

from zlib import crc32

import pytest
import torch
from torch import nn

from prunekit.coupling.groups import Group, Member
from prunekit.errors import InputError, PrunekitError, RegistryError, ScorerError
from prunekit.inputs import Inputs, Sample
from prunekit.scorers import DisturbedTaylor, Magnitude, Random, Statistics, Taylor
from prunekit.scorers.calibrate import checksum, gradients
from prunekit.scorers.disturbed_taylor import Disturbance
from prunekit.scorers.normalise import NORMALISERS, normaliser
from prunekit.scorers.norms import powers
from prunekit.scorers.reduce import REDUCERS, rows

HEADS, DIM, WIDTH = 3, 4, 10


def identity(size: int) -> torch.Tensor:
    return torch.arange(size)


class Conv(nn.Module):
    """conv -> BN -> ReLU -> conv -> mean; the first conv's channels are the group."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.n = nn.BatchNorm2d(6)
        self.b = nn.Conv2d(6, 5, 3)
        self.unused = nn.Parameter(torch.ones(6))
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        return self.b(self.n(self.a(x)).relu()).mean((2, 3))


CHANNELS = Group(
    "a.weight:0",
    "channels",
    6,
    (
        Member("a.weight", 0, identity(6)),
        Member("a.bias", 0, identity(6)),
        Member("n.weight", 0, identity(6)),
        Member("n.bias", 0, identity(6)),
        Member("n.running_mean", 0, identity(6), is_buffer=True),
        Member("b.weight", 1, identity(6)),
        Member("unused", 0, identity(6)),
    ),
)


class Attention(nn.Module):
    """Fused qkv attention over (B, N, WIDTH), residual, then an MLP: a block of a toy ViT."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * HEADS * DIM)
        self.proj = nn.Linear(HEADS * DIM, WIDTH)
        self.fc1 = nn.Linear(WIDTH, 32)
        self.fc2 = nn.Linear(32, WIDTH)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, HEADS, DIM).permute(2, 0, 3, 1, 4)
        y = (q @ k.transpose(-2, -1) * DIM**-0.5).softmax(-1) @ v
        x = x + self.proj(y.transpose(1, 2).reshape(b, n, HEADS * DIM))
        return x + self.fc2(nn.functional.gelu(self.fc1(x)))


GRID = torch.arange(HEADS * DIM)
HEAD = Group(
    "qkv.weight:0",
    "attention.heads",
    HEADS,
    (
        Member("qkv.weight", 0, (GRID // DIM).repeat(3)),
        Member("qkv.bias", 0, (GRID // DIM).repeat(3)),
        Member("proj.weight", 1, GRID // DIM),
    ),
)
HEAD_DIM = Group(
    "qkv.weight:0.d",
    "attention.head_dim",
    DIM,
    (
        Member("qkv.weight", 0, (GRID % DIM).repeat(3)),
        Member("qkv.bias", 0, (GRID % DIM).repeat(3)),
        Member("proj.weight", 1, GRID % DIM),
    ),
)
HIDDEN = Group(
    "fc1.weight:0",
    "mlp.hidden",
    32,
    (Member("fc1.weight", 0, identity(32)), Member("fc1.bias", 0, identity(32)), Member("fc2.weight", 1, identity(32))),
)


def make(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    model = kind()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p.copy_(torch.randn_like(p))
    return model


def images(count: int, shape=(1, 3, 8, 8), seed: int = 1) -> list[Sample]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Sample(Inputs((torch.randn(shape, generator=generator),)), torch.randint(0, 5, (1,), generator=generator))
        for _ in range(count)
    ]


def tokens(count: int) -> list[Sample]:
    return images(count, (1, 7, WIDTH), seed=2)


CASES = [
    (Conv, CHANNELS, images),
    (Attention, HEAD, tokens),
    (Attention, HEAD_DIM, tokens),
    (Attention, HIDDEN, tokens),
]


def plain_reduction(group: Group, values: dict[str, torch.Tensor]) -> list[float]:
    """The group reduction as loops over units, parameters and coordinates."""
    scores = []
    for unit in range(group.size):
        per_parameter = []
        for member in group.members:
            if member.is_buffer:
                continue
            found = []
            for coordinate in range(len(member.unit_of)):
                if member.unit_of[coordinate] == unit:
                    found += values[member.tensor].select(member.axis, coordinate).abs().flatten().tolist()
            per_parameter.append(sum(found) / len(found))
        scores.append(sum(per_parameter) / len(per_parameter))
    return scores


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


def close(ours: torch.Tensor, reference: list[float]) -> bool:
    theirs = torch.tensor(reference, dtype=torch.float64)
    return torch.allclose(ours, theirs, rtol=1e-4, atol=float(theirs.abs().max()) * 1e-6)


@pytest.mark.parametrize(("kind", "group", "_samples"), CASES)
@pytest.mark.parametrize("p", [1, 2])
def test_magnitude_against_loops(kind, group, _samples, p):
    model = make(kind)
    weights = dict(model.named_parameters())
    reference = []
    for unit in range(group.size):
        per_parameter = []
        for member in group.parameters:
            owned = weights[member.tensor].detach().index_select(member.axis, member.coordinates(unit))
            per_parameter.append(float(owned.abs().pow(p).mean().pow(1 / p)))
        reference.append(sum(per_parameter) / len(per_parameter))
    assert close(Magnitude(p).score(group, Statistics(model)), reference)


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


def snapshot(model: nn.Module):
    return (
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
        [p.requires_grad for p in model.parameters()],
        [p.grad for p in model.parameters()],
        [module.training for module in model.modules()],
        torch.get_rng_state(),
        getattr(model, "cache", None),
    )


def same(one, two) -> bool:
    return (
        all(torch.equal(a, b) for a, b in zip(one[0].values(), two[0].values(), strict=True))
        and one[1] == two[1]
        and all(a is b for a, b in zip(one[2], two[2], strict=True))
        and one[3] == two[3]
        and torch.equal(one[4], two[4])
        and one[5] == two[5]
    )


class Noisy(Conv):
    """Draws from the global RNG, counts its calls in a buffer and caches a derived tensor, as real models do."""

    def __init__(self):
        super().__init__()
        self.cache = {}

    def forward(self, x):
        torch.rand(3)
        if "b" not in self.cache:
            self.cache["b"] = self.b.bias.exp()
        return super().forward(x) + self.cache["b"]


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_of_the_model_changes(fails):
    model = make(Noisy)
    model.train()
    model.n.eval()
    model.a.weight.requires_grad_(False)
    model.b.weight.grad = torch.ones_like(model.b.weight)
    before = snapshot(model)
    calls = []

    def loss(output, target):
        calls.append(model.training)
        if fails and len(calls) == 2:
            raise ZeroDivisionError
        return nn.functional.cross_entropy(output, target)

    statistics = Statistics(model, images(3))
    if fails:
        with pytest.raises(ZeroDivisionError):
            Taylor(loss).score(CHANNELS, statistics)
    else:
        scores = Taylor(loss).score(CHANNELS, statistics)
        assert (scores > 0).all()
    assert calls[0] is False
    assert same(before, snapshot(model))


def test_a_cached_tensor_with_a_graph_is_computed_again():
    model = make(Noisy).eval()
    model(torch.zeros(1, 3, 8, 8)).sum().backward()  # its graph is gone now
    cached = model.cache["b"]
    assert (DisturbedTaylor().score(CHANNELS, Statistics(model, images(2))) > 0).all()
    assert model.cache["b"] is cached


def test_frozen_parameters_are_scored_and_no_grad_of_the_caller_does_not_matter():
    trainable, frozen = make(Conv), make(Conv).requires_grad_(False)
    expected = DisturbedTaylor().score(CHANNELS, Statistics(trainable, images(2)))
    with torch.no_grad():
        found = DisturbedTaylor().score(CHANNELS, Statistics(frozen, images(2)))
    assert torch.equal(expected, found)


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


def test_products_are_computed_once_and_only_where_asked():
    steps = []
    names = ["a.weight", "b.weight"]
    statistics = Statistics(
        make(Conv), images(3), parameters=names, progress=lambda done, total: steps.append((done, total))
    )
    first = statistics.products(Disturbance(0.01, 0), "abs")
    assert statistics.products(Disturbance(0.01, 0), "abs") is first
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert sorted(first) == names
    statistics.products(Disturbance(0.01, 0), "abs", limit=2)
    assert steps[3:] == [(1, 2), (2, 2)]
    with pytest.raises(ScorerError, match=r"a\.bias"):
        DisturbedTaylor().score(CHANNELS, statistics)


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


class Outputs(nn.Module):
    def __init__(self, choose):
        super().__init__()
        self.a, self.choose = nn.Linear(4, 3), choose

    def forward(self, x):
        return self.choose(self.a(x))


LINEAR = Group("a.weight:0", "channels", 3, (Member("a.weight", 0, identity(3)),))


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


def test_what_is_not_finite_is_named():
    model = make(Conv)
    with torch.no_grad():
        model.unused[0] = torch.inf
    with pytest.raises(ScorerError, match="weight unused"):
        Magnitude().score(CHANNELS, Statistics(model))
    with pytest.raises(ScorerError, match="weight unused"):
        DisturbedTaylor().score(CHANNELS, Statistics(model, images(1)))
    with pytest.raises(ScorerError, match="loss is not finite"):
        Taylor(lambda y, t: y.sum() * torch.inf).score(CHANNELS, Statistics(make(Conv), images(1)))

    with pytest.raises(ScorerError, match=r"gradient of a\.weight"):
        # Finite value, infinite slope: sqrt at zero.
        Taylor(lambda y, t: (y - y.detach()).abs().sqrt().sum()).score(
            LINEAR, Statistics(Outputs(lambda y: y), images(1, (1, 4)))
        )


@pytest.mark.parametrize(
    "make_scorer",
    [
        lambda: DisturbedTaylor(sigma=0),
        lambda: DisturbedTaylor(sigma=float("nan")),
        lambda: DisturbedTaylor(images=0),
        lambda: DisturbedTaylor(accumulation="sum"),
        lambda: Taylor(accumulation="sum"),
        lambda: Magnitude(p=0),
        lambda: Magnitude(across="median"),
        lambda: Magnitude(within="max").score(LINEAR, Statistics(Outputs(lambda y: y))),
    ],
)
def test_settings_are_checked(make_scorer):
    with pytest.raises((InputError, RegistryError)):
        make_scorer()


def test_a_group_that_does_not_fit_the_model():
    statistics = Statistics(Outputs(lambda y: y))
    wrong_name = Group("g", "channels", 3, (Member("a.wieght", 0, identity(3)),))
    with pytest.raises(ScorerError, match=r"near: a\.weight"):
        Magnitude().score(wrong_name, statistics)
    wrong_length = Group("g", "channels", 4, (Member("a.weight", 0, identity(4)),))
    with pytest.raises(ScorerError, match="coordinates on axis"):
        Magnitude().score(wrong_length, statistics)
    no_parameter = Group("g", "channels", 3, (Member("x", 0, identity(3), is_buffer=True),))
    with pytest.raises(ScorerError, match="owns no parameter"):
        Magnitude().score(no_parameter, statistics)
    bare_unit = Group("g", "channels", 4, (Member("a.weight", 0, identity(3)),))
    with pytest.raises(PrunekitError, match="owns no parameter element"):
        Magnitude().score(bare_unit, statistics)


def test_reducers_and_coordinates_outside_the_group():
    values = {"a": torch.tensor([[1.0, -3.0], [5.0, 5.0], [9.0, 9.0]]), "b": torch.tensor([4.0, 8.0])}
    group = Group(
        "a:0", "channels", 2, (Member("a", 0, torch.tensor([0, -1, 1])), Member("b", 0, torch.tensor([0, 0])))
    )
    table = rows(group, values.__getitem__)
    assert table[0].tolist() == [2.0, 9.0]
    assert table[1, 0] == 6.0
    assert table[1, 1].isnan()
    assert rows(group, values.__getitem__, "sum")[:, 0].tolist() == [4.0, 12.0]
    assert REDUCERS["mean"](table).tolist() == [4.0, 9.0]
    assert REDUCERS["sum"](table).tolist() == [8.0, 9.0]
    assert REDUCERS["max"](table).tolist() == [6.0, 9.0]


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


def test_random_is_reproducible_and_independent_of_the_global_rng():
    statistics = Statistics(make(Conv))
    state = torch.get_rng_state()
    one = Random(3).score(CHANNELS, statistics)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(5)
    assert torch.equal(one, Random(3).score(CHANNELS, statistics))
    assert not torch.equal(one, Random(4).score(CHANNELS, statistics))
    assert not torch.equal(Random(3).score(HIDDEN, statistics)[:6], one)
    generator = torch.Generator().manual_seed(crc32(b"3 a.weight:0"))
    assert torch.equal(one, torch.rand(6, generator=generator, dtype=torch.float64))


def test_normalisers():
    x = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    assert NORMALISERS["none"](x).tolist() == [1, 2, 5]
    assert NORMALISERS["sum"](x).tolist() == [1 / 8, 2 / 8, 5 / 8]
    assert torch.allclose(NORMALISERS["mean"](x), x * 3 / 8)
    assert NORMALISERS["max"](x).tolist() == [0.2, 0.4, 1]
    assert NORMALISERS["standardisation"](x).tolist() == [0, 0.25, 1]
    z = NORMALISERS["gaussian"](x)
    assert abs(float(z.mean())) < 1e-12
    assert abs(float(z.std()) - 1) < 1e-12
    with pytest.raises(RegistryError, match="gaussian"):
        normaliser("gausian")


@pytest.mark.parametrize("name", NORMALISERS)
@pytest.mark.parametrize(
    "scores",
    [[0.0, 0.0], [3.0], [2.0, 2.0], [-1.0, -2.0, 3.0], [-3.0, -1.0]],
    ids=["zero", "one", "flat", "mix", "neg"],
)
def test_normalisers_stay_finite_and_keep_the_order(name, scores):
    x = torch.tensor(scores, dtype=torch.float64)
    y = NORMALISERS[name](x)
    assert torch.isfinite(y).all()
    assert torch.equal(x.argsort(stable=True), y.argsort(stable=True))


@pytest.mark.parametrize("shape", [(7,), (5, 6), (4, 5, 3), (6, 4, 3, 3), (3, 2, 2, 2, 2), (700, 900)])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_powers_along_every_axis(shape, p):
    torch.manual_seed(0)
    for weight in (torch.randn(shape), torch.randn(shape).half(), torch.randn(shape).double()):
        for axis in range(len(shape)):
            others = [k for k in range(len(shape)) if k != axis]
            expected = weight.double().abs().pow(p)
            expected = expected.sum(others) if others else expected
            assert torch.allclose(powers(weight, axis, p), expected, rtol=1e-5)
    transposed = torch.randn(6, 4, 3).permute(2, 0, 1)
    assert torch.allclose(powers(transposed, 1, 2.0), transposed.double().square().sum((0, 2)), rtol=1e-5)
