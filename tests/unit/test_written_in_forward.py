"""A forward that writes into its own weights, counters and containers: no call of prunekit leaves a trace of it."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict, deque
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import prunekit
from prunekit.errors import PrunekitError

X, IDS = torch.randn(4, 16, generator=torch.Generator().manual_seed(0)), torch.arange(28).view(4, 7) % 20


class Tail(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(16, 32), nn.Linear(32, 4)

    def forward(self, x):
        return self.last(self.first(x).relu())


class Looked(Tail):
    """A table whose rows are renormalised as they are looked up."""

    def __init__(self, kind):
        super().__init__()
        self.table = kind(20, 16, max_norm=0.5)

    def forward(self, ids):
        return super().forward(self.table(ids))


class Clipped(Tail):
    def forward(self, x):
        self.first.weight.data.clamp_(-0.01, 0.01)
        return super().forward(x)


class Exchanged(Tail):
    def forward(self, x):
        self.last.weight.data = self.last.weight.data * 0.5
        return super().forward(x)


class Decaying(Tail):
    def forward(self, x):
        with torch.no_grad():
            self.first.weight.mul_(0.5)
        return super().forward(x)


class Deciding(Decaying):
    """Reads a value, so that it is followed on real numbers."""

    def forward(self, x):
        return super().forward(x if float(x.sum()) > -1e9 else -x)


class Own(nn.BatchNorm1d):
    """Running statistics that are written in eval mode too."""

    def forward(self, x):
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, True)


class Counting(Tail):
    """Keeps what it saw wherever Python lets it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.zeros(()), persistent=False)
        self.count, self.seen, self.sums = torch.zeros(()), [torch.zeros(1)], {"all": [torch.zeros(1)]}
        self.order, self.last_few, self.names = OrderedDict(), deque(maxlen=3), defaultdict(list)
        self.config = SimpleNamespace(calls=0, total=torch.zeros(1))

    def forward(self, x):
        self.steps += 1
        self.count += 1
        self.seen[0].add_(1)
        self.sums["all"][0].add_(1)
        self.sums["all"].append(x.detach().sum())
        self.order[len(self.order)] = x.detach()
        self.last_few.append(x.detach())
        self.names["x"].append(1)
        self.config.calls += 1
        self.config.total.add_(1)
        return super().forward(x)


def normed(old):
    norm = nn.utils.spectral_norm if old else nn.utils.parametrizations.spectral_norm
    model = Tail()
    norm(model.first)
    return model


MODELS = {
    "embedding": (lambda: Looked(nn.Embedding), IDS),
    "bag": (lambda: Looked(nn.EmbeddingBag), IDS),
    "clipped": (Clipped, X),
    "exchanged": (Exchanged, X),
    "decaying": (Decaying, X),
    "deciding": (Deciding, X),
    "counting": (Counting, X),
    "statistics": (lambda: nn.Sequential(nn.Linear(16, 32), Own(32), nn.ReLU(), nn.Linear(32, 4)), X),
    "spectral norm by hooks": (lambda: normed(True), X),
    "spectral norm": (lambda: normed(False), X),
}
CALLS = {
    "trace": lambda m, x: prunekit.trace(m, x),
    "plan": lambda m, x: prunekit.plan(m, x, ratio=0.5, data=[x]),
    "wanda": lambda m, x: prunekit.plan(m, x, ratio=0.5, scorer="wanda", data=[x]),
    "latency": lambda m, x: prunekit.plan(m, x, target="latency<=99%", scorer="magnitude"),
    "measured": lambda m, x: prunekit.plan(m, x, target="params<=70%", allocation="measured", data=[x]),
    "refused": lambda m, x: prunekit.plan(m, x, target="params<=0.01%", data=[x]),
    "ridge": lambda m, x: prunekit.prune(m, x, ratio=0.5, data=[x], compensate="ridge").undo(),
    "in order": lambda m, x: prunekit.prune(m, x, ratio=0.5, data=[x], compensate="ridge-in-order").undo(),
    "steps": lambda m, x: prunekit.prune(m, x, ratio=0.5, data=[x], steps=2).undo(),
}


def held(model):
    """Everything that lies on the model's modules, as copies."""
    found = {name: tensor.clone() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if not name.startswith("_"):
                found[f"{path}.{name}"] = copy.deepcopy(vars(value) if isinstance(value, SimpleNamespace) else value)
    return found


def alike(a, b):
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.device == b.device and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple, deque)):
        return len(a) == len(b) and all(map(alike, a, b))
    return a == b


PAIRS = [("embedding", call) for call in CALLS]
PAIRS += [("counting", call) for call in CALLS if call != "latency"]
PAIRS += [(model, call) for model in MODELS for call in ("plan", "in order") if model not in ("embedding", "counting")]


@pytest.mark.parametrize(("name", "what"), PAIRS, ids=[", ".join(pair) for pair in PAIRS])
def test_the_model_is_what_it_was(name, what):
    torch.manual_seed(0)
    (make, x), call = MODELS[name], CALLS[what]
    model = make()
    tensors = dict(model.named_parameters())
    before = held(model)
    try:
        call(model, x)
    except PrunekitError:
        assert what in ("refused", "latency")
    after = held(model)
    assert [name for name in before if not alike(before[name], after.get(name))] == []
    assert before.keys() == after.keys()
    assert all(tensor is tensors[name] for name, tensor in model.named_parameters())


@pytest.mark.parametrize("rows", [20, 20_000])
def test_undo_gives_a_table_back_that_ran_in_between(rows):
    torch.manual_seed(0)
    model = Looked(nn.Embedding)
    model.table = nn.Embedding(rows, 16, max_norm=0.5)  # far larger than what is cut
    before = held(model)
    result = prunekit.prune(model, IDS, ratio=0.5, scorer="magnitude", include=["first"])
    model(IDS)
    assert not torch.equal(model.table.weight, before["table.weight"])
    result.undo()
    assert torch.equal(model.table.weight, before["table.weight"])


def test_the_pruned_model_is_the_masked_one_where_a_table_is_renormalised():
    torch.manual_seed(0)
    model = Looked(nn.Embedding).double()
    whole = copy.deepcopy(model)
    plan = prunekit.plan(model, IDS, ratio=0.5, scorer="magnitude", include=["first"])
    (width,) = plan.widths
    with torch.no_grad():
        gone = [unit for unit in range(32) if unit not in width.kept]
        whole.last.weight[:, gone] = 0
    prunekit.apply(model, plan)
    assert torch.allclose(model(IDS), whole(IDS), atol=1e-12)
