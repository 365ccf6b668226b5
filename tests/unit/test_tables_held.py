"""A dict of tensors that forward reads is no cache: it is followed, kept by a cut, and on the model as it was."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from support.compare import distance
from torch import nn

import prunekit
from prunekit.errors import NothingToPruneError
from prunekit.modules.emptied import Emptied


class Tail(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.last(self.first(x).relu())


class Residual(Tail):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(16, 8)

    def forward(self, x):
        return x + super().forward(x)


class Indexed(Tail):
    """Reads rows by a key."""

    def __init__(self):
        super().__init__()
        self.tables = {"order": torch.randperm(8), "unused": torch.ones(3)}

    def forward(self, x):
        return super().forward(x[..., self.tables["order"]])


class Asked(Tail):
    """Goes another way where there is no mask."""

    def __init__(self):
        super().__init__()
        self.masks = {"hidden": torch.rand(16)}

    def forward(self, x):
        x = self.first(x).relu()
        mask = self.masks.get("hidden")
        return self.last(x if mask is None else x * mask)


class Known(Asked):
    def forward(self, x):
        x = self.first(x).relu()
        return self.last(x * self.masks["hidden"] if "hidden" in self.masks else x)


class Walked(Asked):
    def forward(self, x):
        x = self.first(x).relu()
        for mask in self.masks.values():
            x = x * mask
        return self.last(x)


class Counted(Asked):
    def forward(self, x):
        x = self.first(x).relu()
        return self.last(x * self.masks["hidden"] if self.masks else x)


class Owning(Tail):
    """Reads its own parameters by a key, in lists too."""

    def __init__(self):
        super().__init__()
        self.weights = {"first": self.first.weight, "bias": self.first.bias}
        self.nested = {"all": [self.last.weight, (self.last.bias,)]}

    def forward(self, x):
        x = nn.functional.linear(x, self.weights["first"], self.weights["bias"]).relu()
        return nn.functional.linear(x, self.nested["all"][0], self.nested["all"][1][0])


class Both(Indexed):
    """A table, and a cache of what follows from a weight."""

    def __init__(self):
        super().__init__()
        self.cache = {}

    def forward(self, x):
        if "scale" not in self.cache:
            self.cache["scale"] = self.first.bias.detach().exp()
        x = self.first(x[..., self.tables["order"]]).relu()
        return self.last(x * self.cache["scale"])


HELD = ("tables", "masks", "weights", "nested", "cache")


def dicts(model):
    return {name: vars(model)[name] for name in HELD if name in vars(model)}


@pytest.mark.parametrize("used", [False, True], ids=["new", "used before"])
@pytest.mark.parametrize("make", [Indexed, Asked, Known, Walked, Counted, Owning, Both])
def test_what_forward_reads_is_kept(make, used):
    torch.manual_seed(0)
    model = make().double().eval()
    for name, value in (dicts(model) if make is not Owning else {}).items():
        vars(model)[name] = {k: v.double() if v.is_floating_point() else v for k, v in value.items()}
    x = torch.randn(3, 8, dtype=torch.float64)
    if used:
        model(x)
    own = dicts(model)
    before = {name: dict(value) for name, value in own.items()}
    plan = prunekit.Plan.from_json(prunekit.plan(model, x, ratio=0.5, free_outputs=True, data=[x]).to_json())
    assert all(dicts(model)[name] is value and value == before[name] for name, value in own.items())
    masked = copy.deepcopy(model)
    if make is Both:
        masked.cache = {}
    undo = prunekit.apply(model, plan)
    kept = {width.group: width.kept for width in plan.widths}
    hidden = next((units for name, units in kept.items() if name.startswith("first")), range(16))
    shown = next((units for name, units in kept.items() if name.startswith("last")), range(4))
    with torch.no_grad():
        masked.last.weight[:, [unit for unit in range(16) if unit not in hidden]] = 0
        assert distance([masked(x)[..., list(shown)]], [model(x)]) < 1e-12
    assert plan.widths
    undo()
    assert all(dicts(model)[name] is value for name, value in own.items())
    assert all(v is before[name][k] for name, value in own.items() for k, v in value.items())


def test_a_cache_of_other_shapes_is_none_to_keep():
    class Shaped(Tail):
        """Remembers a scale by the length that it met."""

        def __init__(self):
            super().__init__()
            self.cache = {}

        def forward(self, x):
            if len(x) not in self.cache:
                self.cache[len(x)] = self.first.bias.detach().exp()
            return self.last(self.first(x).relu() * self.cache[len(x)])

    model = Shaped().eval()
    model(torch.randn(5, 8))
    model(torch.randn(2, 8))
    result = prunekit.prune(model, torch.randn(2, 8), ratio=0.5)
    assert model.first.out_features == 8
    assert result.plan.tables == ()
    assert model(torch.randn(5, 8)).shape == (5, 4)


def test_steps_and_depth_keep_the_table():
    class Deep(Tail):
        def __init__(self):
            super().__init__()
            self.tables = {"order": torch.randperm(8)}
            self.blocks = nn.ModuleList(Residual() for _ in range(3))

        def forward(self, x):
            x = x[..., self.tables["order"]]
            for block in self.blocks:
                x = block(x)
            return super().forward(x)

    x = torch.randn(3, 8)
    for asked in ({"ratio": 0.5, "steps": 2}, {"roles": ["depth.block"], "ratio": 0.4}, {"target": "latency<=500%"}):
        torch.manual_seed(0)
        model = Deep().eval()
        order = model.tables["order"]
        result = prunekit.prune(model, x, data=[x], **asked)
        assert model.tables["order"] is order
        model(x)
        result.undo()


def test_a_dict_that_seems_empty_notes_what_is_asked_in_vain():
    held = {"a": torch.ones(1), "b": torch.ones(1)}
    ways = [lambda d: d.get("a"), lambda d: "a" in d, len, list, bool, dict, lambda d: {**d}, lambda d: d.items()]
    for way in ways:
        made = Emptied(held)
        way(made)
        assert made.is_table
    for way in (lambda d: d.get("c"), lambda d: "c" in d, lambda d: d.setdefault("a", 1), lambda d: d.update(a=1)):
        made = Emptied(held)
        way(made)
        assert not made.is_table


def test_fourier_layers_are_followed():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = peft.FourierFTConfig(n_frequency=10, target_modules=["first"])
    model = peft.get_peft_model(Tail(), config)
    x = torch.randn(3, 8)
    structure = prunekit.trace(model, x)
    assert [name for name in structure.tables if name.endswith("first.indices")]
    indices = model.base_model.model.first.indices["default"]
    with contextlib.suppress(NothingToPruneError):  # the spectrum is of all widths
        prunekit.prune(model, x, structure=structure, ratio=0.5, data=[x])
    assert model.base_model.model.first.indices["default"] is indices
    model(x)
