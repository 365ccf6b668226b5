"""Criteria compared: one budget, the model put back, what a seed changes, and what is told apart from chance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import nn

import prunekit
from prunekit.comparison import Comparison, Line, Trial, compare, contest, needs_no_labels
from prunekit.comparison.draws import Drawn
from prunekit.errors import InputError, NothingToPruneError, RegistryError, ScorerError, SelectionError
from prunekit.inputs import Inputs, Sample
from prunekit.planning import symmetry_check
from prunekit.planning.symmetry_check import Symmetry
from prunekit.registry import known_scorers


class Net(nn.Module):
    """Of the 24 hidden units the last 12 are never read: who keeps the first 12 loses nothing at ratio 0.5."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(6, 24), nn.Linear(24, 4)
        with torch.no_grad():
            self.b.weight[:, 12:] = 0

    def forward(self, x):
        return self.b(self.a(x).relu())


class Knows:
    """Scores by place: the first units, or with ``sign`` -1 the last ones, are kept."""

    def __init__(self, sign=1):
        self.sign = sign

    def score(self, group, statistics):
        return -self.sign * torch.arange(group.size, dtype=torch.float64)

    def __eq__(self, other):
        return type(other) is Knows and other.sign == self.sign

    __hash__ = None


class Pool(Sequence):
    """Samples that remember who was fetched."""

    def __init__(self, count):
        generator = torch.Generator().manual_seed(1)
        self.samples = [Sample(Inputs((torch.randn(1, 6, generator=generator),))) for _ in range(count)]
        self.fetched = []

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        self.fetched.append(index)
        return self.samples[index]


X = torch.randn(40, 6, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def agreement(model):
    wanted = Net()(X)
    return {"cosine": float(nn.functional.cosine_similarity(model(X), wanted).mean()), "zero": 0.0}


def run(model=None, scorers=("magnitude",), **options):
    options = {"data": Pool(12), "images": 4, "align": 1, "exclude": None} | options
    return compare(model or Net().eval(), scorers, options.pop("evaluate", agreement), X[:1], **options)


def figures(found):
    return [(line.scorer, line.values(found.metric), line.why) for line in found.lines]


def test_what_knows_the_truth_is_better_than_random_and_its_opposite_worse():
    found = run(scorers={"best": lambda seed: Knows(), "worst": lambda seed: Knows(-1)})
    assert [line.scorer for line in found.lines] == ["best", "random", "worst"]
    assert [found.verdict(line) for line in found.lines] == ["better", "control", "worse"]
    assert found.line("best").values("cosine") == pytest.approx([1.0])
    assert found.original == pytest.approx({"cosine": 1.0, "zero": 0.0})


@pytest.mark.parametrize("compensate", [None, "ridge"])
def test_the_model_is_what_it_was_and_every_cut_has_one_budget(compensate):
    model = Net().eval()
    before = {name: (tensor, tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    found = run(model, needs_no_labels(), compensate=compensate, exclude=None)
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert tensor is before[name][0]
        assert torch.equal(tensor, before[name][1])
    cuts = {(trial.params, trial.macs) for line in found.lines for trial in line.trials}
    assert cuts == {(12 * 7 + 4 * 13, 12 * 6 + 4 * 12)}
    assert (found.params, found.macs) == (24 * 7 + 4 * 25, 24 * 6 + 4 * 24)


def test_a_model_is_put_back_where_the_evaluation_fails():
    model, calls = Net().eval(), []
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def fails(part):
        calls.append(part.a.out_features)
        if len(calls) == 3:
            raise ZeroDivisionError
        return agreement(part)

    with pytest.raises(ZeroDivisionError):
        run(model, evaluate=fails)
    assert calls == [24, 12, 12]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_reads_neither_samples_nor_a_seed_is_run_once():
    scorers = ("magnitude", "activation", "wanda", "saliency", "disturbed_taylor")
    found = run(scorers=scorers)
    runs = {line.scorer: (len(line.trials), line.fixed) for line in found.lines}
    data = dict.fromkeys(("random", "activation", "wanda", "saliency", "disturbed_taylor"), (3, False))
    assert runs == {"magnitude": (1, True), **data}
    refitted = run(scorers=scorers, compensate="ridge")
    assert {(len(line.trials), line.fixed) for line in refitted.lines} == {(3, False)}


def test_scorers_share_what_is_computed_of_a_seed_and_only_what_is_drawn_is_read():
    pool = Pool(40)
    run(data=pool, scorers=("activation", "wanda", "apoz"), seeds=(0, 5))
    assert len(pool.fetched) == 1 + 2 * 4  # a look at what the pool holds, then four samples a seed, once each


def test_seeds_draw_different_samples_and_at_most_half_of_them():
    pool = Pool(10)
    drawn = [Drawn.of(pool, 5, seed).indices for seed in (0, 1)]
    assert set(drawn[0]) != set(drawn[1])
    assert all(len(set(indices)) == 5 for indices in drawn)
    assert run(data=pool, images=64).settings["images"] == 5
    assert run(data=pool, images=64, seeds=(3,)).settings["images"] == 10


def test_the_same_seeds_give_the_same_figures():
    scorers = ("activation", "disturbed_taylor", "magnitude")
    torch.manual_seed(1)
    one = run(scorers=scorers)
    torch.manual_seed(2)
    assert figures(one) == figures(run(scorers=scorers))
    assert figures(one) != figures(run(scorers=scorers, seeds=(7, 8, 9)))


def test_one_that_cannot_score_says_why_and_stops_no_other():
    found = run(scorers=("batch_norm_scale", "taylor", "magnitude"))
    assert [line.scorer for line in found.lines[2:]] == ["batch_norm_scale", "taylor"]
    assert "no batch norm reads group a.weight:0" in found.line("batch_norm_scale").why
    assert "Taylor needs a loss" in found.line("taylor").why
    assert found.verdict(found.line("taylor")) == "failed"
    assert found.line("magnitude").trials
    with pytest.raises(ScorerError, match=r"batch_norm_scale: no batch norm.*taylor: Taylor needs a loss"):
        run(scorers=("batch_norm_scale", "taylor"))


def test_a_scorer_that_fails_later_has_no_line_of_half_its_seeds():
    class Second:
        def __init__(self, seed):
            self.seed = seed

        def score(self, group, statistics):
            if self.seed == 1:
                raise ScorerError("not this time")
            return torch.ones(group.size)

    line = run(scorers={"second": Second, "magnitude": lambda seed: prunekit.Magnitude()}).line("second")
    assert (line.trials, line.why) == ((), "not this time")


def test_what_stops_the_control_stops_the_comparison():
    with pytest.raises(SelectionError, match="out of reach"):
        run(target="params<=1")
    with pytest.raises(NothingToPruneError):
        run(ratio=0.01)


@pytest.mark.parametrize("options", [{"seeds": ()}, {"seeds": (1, 1)}, {"images": 0}, {"ratio": 1.0}, {"target": "x"}])
def test_what_compares_nothing_is_refused(options):
    with pytest.raises(InputError):
        run(**options)


def test_an_unknown_scorer_is_refused_before_anything_runs():
    with pytest.raises(RegistryError, match="magnitude"):
        run(scorers=("magnitud",), evaluate=lambda model: pytest.fail("it ran"))


def test_groups_without_symmetry_are_left_alone(monkeypatch):
    class Deep(Net):
        def __init__(self):
            super().__init__()
            self.c = nn.Linear(4, 8)

        def forward(self, x):
            return self.c(super().forward(x).relu())

    seen = []

    class Notes(Knows):
        def score(self, group, statistics):
            seen.append(group.name)
            return super().score(group, statistics)

    checks = []

    def broken(*_):
        checks.append(1)
        return Symmetry(1.0, ("a.weight:0",))

    monkeypatch.setattr(contest, "check_symmetry", broken)
    run(Deep().eval(), {"notes": lambda seed: Notes()}, evaluate=lambda model: {"width": model.a.out_features})
    assert set(seen) == {"b.weight:0"}
    assert checks == [1]


def test_a_model_is_traced_and_its_symmetry_checked_once(monkeypatch):
    calls = []

    def counted(module, name):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, **k: calls.append(name) or function(*a, **k))

    counted(symmetry_check, "symmetry")
    counted(contest, "trace")
    run(scorers=("magnitude", "wanda"))
    assert sorted(calls) == ["symmetry", "trace"]


def test_without_data_inputs_are_generated_and_a_notice_says_so(caplog):
    found = run(data=None, scorers=("wanda",))
    assert found.settings["of_images"] == 12
    assert "generated inputs" in caplog.text


def test_needing_no_labels():
    names = needs_no_labels()
    assert set(known_scorers()) - set(names) == {"taylor", "fisher", "obd"}


# ---- values


def made(values, control=(1.0, 2.0, 3.0), why=""):
    def trials(given):
        return tuple(Trial(i, {"m": v}, 1, 1) for i, v in enumerate(given))

    lines = [Line("x", trials(values), False, why), Line("random", trials(control))]
    found = Comparison.of(lines, control="random", original={"m": 5.0}, params=2, macs=2, settings={})
    return found, found.line("x")


@pytest.mark.parametrize(
    ("values", "control", "verdict"),
    [
        ((3.1, 4.0), (1.0, 2.0, 3.0), "better"),
        ((3.0, 4.0), (1.0, 2.0, 3.0), "not told apart"),
        ((0.5, 4.0), (1.0, 2.0, 3.0), "not told apart"),
        ((2.0,), (1.0, 3.0), "not told apart"),
        ((0.5, 0.9), (1.0, 2.0, 3.0), "worse"),
        ((9.0,), (1.0,), "one seed"),
        ((math.nan, 4.0), (1.0, 2.0), "not told apart"),
        ((), (1.0, 2.0), "failed"),
    ],
)
def test_verdicts(values, control, verdict):
    found, line = made(values, control, "no" if not values else "")
    assert found.verdict(line) == verdict
    assert found.verdict(found.line("random")) == "control"


@pytest.mark.parametrize("count", [1, 2, 4])
def test_luck_is_the_share_of_orders_in_which_one_more_is_above_all(count):
    found, _ = made((1.0,), tuple(map(float, range(count))))
    orders = list(itertools.permutations(range(count + 1)))
    assert found.luck == sum(order[-1] == count for order in orders) / len(orders)


def test_lines_are_sorted_best_first_and_what_has_no_figure_comes_last():
    def line(name, *values):
        return Line(name, tuple(Trial(i, {"m": v}, 1, 1) for i, v in enumerate(values)), why="" if values else "no")

    lines = [line("failed"), line("nan", math.nan), line("low", 1.0, 2.0), line("random", 0.0), line("high", 3.0)]
    found = Comparison.of(lines, control="random", original={"m": 5.0}, params=2, macs=2, settings={})
    assert [made.scorer for made in found.lines] == ["high", "low", "random", "nan", "failed"]
