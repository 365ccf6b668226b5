"""Statistics, and the scorers that read no data: what they compute, ask for and refuse."""

from __future__ import annotations

from zlib import crc32

import pytest
import torch
from support.scoring import (
    CASES,
    CHANNELS,
    HIDDEN,
    LINEAR,
    Conv,
    Outputs,
    close,
    identity,
    images,
    make,
)

from prunekit.coupling.groups import Group, Member
from prunekit.errors import InputError, PrunekitError, RegistryError, ScorerError
from prunekit.scorers import DisturbedTaylor, Magnitude, Random, Scored, Statistics, Taylor, Wanda
from prunekit.scorers.disturbed_taylor import Disturbance


@pytest.mark.parametrize(("kind", "group", "_samples"), CASES)
@pytest.mark.parametrize("p", [0.5, 1, 2, 3])
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


def test_scores_that_are_there_already_are_used_as_they_are():
    statistics = Statistics(make(Conv))
    scored = Scored.of(Random(3), [CHANNELS], statistics)
    assert torch.equal(scored.score(CHANNELS, statistics), Random(3).score(CHANNELS, statistics))
    assert repr(scored) == "Scored(scorer=Random(seed=3))"
    with pytest.raises(ScorerError, match=r"fc1\.weight:0 was not scored"):
        scored.score(HIDDEN, statistics)


def test_statistics_count_what_depends_on_samples():
    statistics = Statistics(make(Conv), images(2))
    Magnitude().score(CHANNELS, statistics)
    assert statistics.asked == 0
    Wanda().score(CHANNELS, statistics)
    Wanda().score(CHANNELS, statistics)
    assert statistics.asked == 2  # the second one came out of what the first one found
