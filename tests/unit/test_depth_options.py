"""Where nothing but depth is asked for, every option of ``prune`` does what it says or is refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import prunekit
from prunekit.errors import ConfigError, InputError, NothingToPruneError
from prunekit.options.together import options_said


class Layer(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, hidden), nn.Linear(hidden, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(x)))


class Tower(nn.Module):
    """Two stacks whose layers are of different sizes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 8)
        self.low = nn.ModuleList(Layer(8) for _ in range(3))
        self.high = nn.ModuleList(Layer(24) for _ in range(3))
        self.last = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for layer in (*self.low, *self.high):
            x = layer(x)
        return self.last(x)


DATA = [torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(8)]
HOW = prunekit.Measured(samples=4, sets=2)


def gone(**asked: Any) -> list[str]:
    """The paths that a plan takes away."""
    model = Tower().eval()
    asked = {"roles": "depth.block", "scorer": prunekit.Random(0), **asked}
    plan = prunekit.prune(model, DATA[0], data=DATA, **asked).plan
    return [path for removal in plan.removals for path in removal.gone]


def steps_of(**asked: Any) -> list[int]:
    seen: list[int] = []
    gone(on_step=lambda model, k, n: seen.append(len(model.low) + len(model.high)), **asked)
    return seen


HONOURED: dict[str, Callable[[], bool]] = {
    "ratio": lambda: len(gone(ratio=0.34)) == 2 and len(gone(ratio=0.17)) == 1,
    "target": lambda: len(gone(target="params<=50%")) > len(gone(target="params<=95%")),
    "include": lambda: (
        [path[:3] for path in gone(include="low", ratio=0.34)] == ["low"]
    ),  # one of its three, not of six
    "exclude": lambda: [path[:3] for path in gone(exclude="high", ratio=0.34)] == ["low"],
    "roles": lambda: gone(roles="depth.mlp", ratio=0.34) == [],  # absences, no removals
    "min_ratio": lambda: sorted(p[:3] for p in gone(ratio=0.34, min_ratio={"low": 0.3, "high": 0.3})) == ["hig", "low"],
    "max_ratio": lambda: {path[:3] for path in gone(ratio=0.5, max_ratio={"low": 0.0})} == {"hig"},
    "scorer": lambda: len({tuple(gone(scorer=prunekit.Random(seed), ratio=0.34)) for seed in range(6)}) > 1,
    "allocation": lambda: gone(target="params<=90%", allocation=HOW, scorer=None) != [],
    "rounding": lambda: len(gone(ratio=0.3, rounding="down")) == 1 and len(gone(ratio=0.3)) == 2,
    "steps": lambda: steps_of(ratio=0.5, steps=3, schedule="linear") == [5, 4, 3],
    "schedule": lambda: steps_of(ratio=0.5, steps=3, schedule="cubic") == [4, 3, 3],  # 70, 96 and 100 percent of three
    "on_step": lambda: steps_of(ratio=0.34) == [4],
    "replace": lambda: gone(ratio=0.34, replace="affine") == [],  # what goes has a map in its place
}
REFUSED: dict[str, list[Any]] = {
    "ranking": ["role", "isomorphic"],
    "normaliser": ["none"],
    "align": [8, "auto", {"depth.block": 2}],
    "granularity": [2, {"depth.block": 2}],
    "pools": [[["depth.block"]]],
    "uniform": [True],
    "compensate": ["ridge", "ridge-in-order"],
}
# nothing to hold a plan against: what is drawn, which checks run, a table of times, and what outputs may do
ELSEWHERE = {"seed", "verify", "latency", "free_outputs"}


def test_every_option_is_in_one_of_the_tables():
    assert {*HONOURED, *REFUSED, *ELSEWHERE} == set(options_said())


@pytest.mark.parametrize("name", HONOURED)
def test_an_option_of_depth_does_what_it_says(name):
    assert HONOURED[name]()


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_an_option_of_widths_alone_is_refused(name, value):
    model = Tower().eval()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match=name) as caught:
        prunekit.prune(model, DATA[0], data=DATA, roles="depth.*", ratio=0.34, scorer="random", **{name: value})
    assert caught.value.where == name
    assert caught.value.hint
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize("name", sorted({*REFUSED} - {"uniform"}))
def test_beside_widths_it_is_theirs(name):
    model = Tower().eval()
    asked = {"ratio": {"depth.block": 0.34, "mlp.hidden": 0.5}, "scorer": "random", name: REFUSED[name][0]}
    asked = {**asked, "pools": [["mlp.hidden"]], "ranking": "global"} if name == "pools" else asked
    assert prunekit.prune(model, DATA[0], data=DATA, **asked).plan.removals


def test_uniform_is_for_what_a_configuration_can_say():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=32, num_hidden_layers=3, **sizes)).eval()
    asked = {"ratio": 0.34, "scorer": "random", "uniform": True}
    with pytest.raises(ConfigError, match="without one of its branches"):
        prunekit.prune(model, roles="depth.mlp", **asked)
    prunekit.prune(model, roles="depth.block", **asked)
    assert model.config.num_hidden_layers == len(model.model.layers) == 2


def test_a_ratio_is_no_target_to_spend():
    with pytest.raises(InputError, match="spends a target"):
        gone(ratio=0.34, allocation="measured", scorer=None)


@pytest.mark.parametrize(
    ("roles", "limit", "replace"),
    [
        ("depth.block", "params<=70%", None),
        ("depth.mlp", "macs<=55%, params<=80%", "affine"),
        ("depth.*", "params<=70%", None),
        ("depth.*", "macs<=55%, params<=80%", "affine"),
    ],
)
def test_a_measured_allocation_of_depth_alone_damages_no_more_than_the_order_of_the_criterion(roles, limit, replace):
    asked = {"roles": roles, "target": limit, "data": DATA}
    model = Tower().eval()
    parts = [part for stack in (model.low, model.high) for part in stack]
    with torch.no_grad():  # taken first, a layer that is worth little would not be enough, and then too much goes
        for place, part in enumerate(parts):
            part.down.weight.mul_(1 + place)
    result = prunekit.prune(model, DATA[0], allocation=HOW, replace=replace, **asked)
    assert result.report.params["after"] == sum(p.numel() for p in model.parameters())
    assert prunekit.trace(model, DATA[0]).cost().params <= 0.8 * result.report.params["before"]
    assert not result.plan.cuts
    told = result.report.notes[0]
    assert "depth within a target" in told
    assert "the program over 0 widths" in result.report.notes[1]
    damages = [float(found) for found in re.findall(r"(\d[\d.e-]*) \(\d+\)", told)]
    assert len(damages) > 1
    assert f"damages {min(damages):.4g};" in told
    result.undo()
    assert sum(p.numel() for p in model.parameters()) == result.report.params["before"]


def test_nothing_more_goes_once_a_target_is_met():
    model = Tower().eval()
    asked = {"roles": "depth.*", "target": "params<=60%", "data": DATA, "allocation": HOW}
    result = prunekit.prune(model, DATA[0], steps=3, **asked)
    assert 0.4 * result.report.params["before"] < result.report.params["after"]
    with pytest.raises(NothingToPruneError, match="takes none"):
        prunekit.prune(model, DATA[0], **{**asked, "target": "params<=100%"})


def test_what_no_order_reaches_is_refused_as_ranked():
    with pytest.raises(prunekit.errors.SelectionError, match="out of reach by depth alone"):
        gone(target="params<=10%", allocation=HOW, scorer=None)


@pytest.mark.parametrize(
    "ratio", [0.5, {"depth.block": 0.5}, {"depth.*": 0.5}, {"low": 0.5, "high": 0.5}, {"low": 0.67, "high": 0.34}]
)
def test_steps_take_what_one_step_takes_also_where_a_list_is_down_to_one(ratio):
    for seed in (0, 1):  # the list that is down to one is the first, and the last
        assert len(gone(ratio=ratio, steps=3, scorer=prunekit.Random(seed))) == 3


def test_steps_take_what_one_step_takes_also_where_branches_went_everywhere():
    model = Tower().eval()
    asked = {"roles": "depth.mlp", "ratio": 0.5, "scorer": prunekit.Random(1), "max_ratio": {"high.*.down": 0.34}}
    plan = prunekit.prune(model, DATA[0], data=DATA, steps=3, **asked).plan
    assert sum(width.before - width.after for width in plan.widths) == 3
