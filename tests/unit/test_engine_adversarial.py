"""What breaks other tools: each case is exact, or refused by name; none is silently wrong."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.compare import differences, distance, masked, run, snapshot
from support.drafts import choose, draft
from torch import nn

import prunekit
from prunekit.errors import NothingToPruneError
from prunekit.planning.symmetry_check import symmetry


@torch.library.custom_op("prunekit_tests::mystery", mutates_args=())
def mystery(x: torch.Tensor) -> torch.Tensor:
    return x.flip(1) + x


@mystery.register_fake
def _(x):
    return torch.empty_like(x)


class Case(nn.Module):
    """conv a (8) -> ``middle`` -> conv b (8) -> head; ``middle`` is the subject."""

    def __init__(self, middle, read=8, state=None):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(read, 8, 1)
        self.head = nn.Linear(8, 4)
        for name, tensor in (state or {}).items():
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(name, tensor)
            else:
                self.register_buffer(name, tensor)
        self.middle = middle

    def forward(self, x):
        return self.head(self.b(self.middle(self, self.a(x))).mean((2, 3)))


def shuffled(s, x):
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def glued(s, x):
    value, gate = x.chunk(2, 1)
    return value * gate.sigmoid()


FREE = {
    "flip and flip back": (lambda s, x: x.flip(1).flip(1), 8),
    "flip joined with itself": (lambda s, x: x + x.flip(1), 8),
    "pixel shuffle": (lambda s, x: F.pixel_shuffle(x, 2), 2),
    "pixel unshuffle": (lambda s, x: F.pixel_unshuffle(x, 2), 32),
    "channel shuffle": (shuffled, 8),
    "channel shuffle operator": (lambda s, x: F.channel_shuffle(x, 2), 8),
    "chunks side by side again": (lambda s, x: torch.cat([x.chunk(2, 1)[1], F.relu(x.chunk(2, 1)[0])], 1), 8),
    "glu chunk": (glued, 4),
    "glu operator": (lambda s, x: F.glu(x, 1), 4),
    "einsum": (lambda s, x: torch.einsum("bchw,c->bchw", x, s.scale), 8),
    "matmul with a bare parameter": (lambda s, x: (x.permute(0, 2, 3, 1) @ s.matrix).permute(0, 3, 1, 2), 8),
    "buffer multiplied": (lambda s, x: x * s.table, 8),
    "buffer added": (lambda s, x: F.relu(x + s.table), 8),
    "written in place": (lambda s, x: F.relu(x, inplace=True).mul_(2), 8),
    "stack and unbind": (lambda s, x: torch.stack([x, 2 * x], 2).sum(2), 8),
    "cumsum over rows of pixels": (lambda s, x: x.cumsum(2), 8),
    "roll over pixels": (lambda s, x: x.roll(1, 3), 8),
    "one channel by number": (lambda s, x: x + x[:, 3:4], 8),
    "size taken from the tensor": (lambda s, x: x.view(x.shape[0], x.shape[1], -1).view(x.shape), 8),
}
BOUND = {
    "channel roll": (lambda s, x: x.roll(1, 1), 8, "rolled"),
    "cumsum over channels": (lambda s, x: x.cumsum(1), 8, "aten.cumsum"),
    "view with literal sizes": (lambda s, x: x.view(2, 8, 64).view(2, 8, 8, 8), 8, "constant"),
    "index_select by a buffer": (lambda s, x: x.index_select(1, s.index), 8, "index"),
    "indexing by a buffer": (lambda s, x: x[:, s.index], 8, "index"),
    "sort over channels": (lambda s, x: x.sort(1).values, 8, "aten.sort"),
    "unknown operator": (lambda s, x: mystery(x), 8, "mystery"),
    "fft": (lambda s, x: torch.fft.rfft2(x, dim=(1, 2)).abs()[:, :, :5], 8, "fft"),
}


def state():
    torch.manual_seed(1)
    return {
        "scale": nn.Parameter(torch.randn(8)),
        "matrix": nn.Parameter(torch.randn(8, 8)),
        "table": torch.randn(1, 8, 1, 1),
        "index": torch.tensor([3, 1, 0, 2, 7, 6, 5, 4]),
    }


def case(middle, read):
    torch.manual_seed(0)
    return Case(middle, read, state()).double().eval(), torch.randn(2, 3, 8, 8).double()


def check_exact(model, x):
    structure = prunekit.trace(model, x)
    assert symmetry(model, structure.groups, structure.inputs).passed
    chosen = [g for g in choose(structure) if not g.normalised]
    made = draft(model, x, structure=structure, include=[g.name for g in chosen], ratio=0.5)
    expected = run(masked(model, chosen, made.kept), x)
    prunekit.apply(model, made.plan)
    assert distance(expected, run(model, x)) < 1e-9
    return structure, made


@pytest.mark.parametrize("name", FREE)
def test_what_can_be_followed_is_exact(name):
    model, x = case(*FREE[name])
    _, made = check_exact(model, x)
    assert any(w.group.startswith("a.weight:0") for w in made.plan.widths), made.plan.explain()
    assert model.a.out_channels < 8


@pytest.mark.parametrize("name", BOUND)
def test_what_cannot_be_followed_is_frozen_by_name_and_place(name):
    middle, read, reason = BOUND[name]
    model, x = case(middle, read)
    structure, made = check_exact(model, x)
    frozen = [f for f in structure.frozen if f.name == "a.weight:0"]
    assert frozen, structure.frozen
    assert reason in frozen[0].reason
    assert "test_engine_adversarial.py:" in frozen[0].where
    assert model.a.out_channels == 8
    assert {w.group.split(":")[0] for w in made.plan.widths} == {"b.weight"}


def test_an_unknown_operator_is_listed_with_its_place():
    model, x = case(*BOUND["unknown operator"][:2])
    structure = prunekit.trace(model, x)
    assert list(structure.unknown) == ["prunekit_tests.mystery"]
    assert "test_engine_adversarial.py:" in structure.unknown["prunekit_tests.mystery"]


def test_tied_weights_stay_one_tensor():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.fc1, self.fc2 = nn.Embedding(20, 16), nn.Linear(16, 24), nn.Linear(24, 16)
            self.head = nn.Linear(16, 20, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x):
            x = self.embed(x)
            return self.head(x + self.fc2(F.gelu(self.fc1(x))))

    torch.manual_seed(0)
    model, x = Tied().double().eval(), torch.randint(0, 20, (2, 5))
    check_exact(model, x)
    assert model.head.weight is model.embed.weight
    assert model.embed.weight.shape == (20, 8)
    assert (model.embed.embedding_dim, model.head.in_features) == (8, 8)


def test_a_layer_that_is_called_twice_is_cut_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.mid, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.mid(F.relu(self.mid(F.relu(self.fc(x))))))

    torch.manual_seed(0)
    model = Twice().double().eval()
    check_exact(model, torch.randn(2, 6).double())
    assert model.mid.weight.shape == (4, 4)


def test_shared_attention_keeps_its_scale_once():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads, self.dim = 2, 8
            self.qkv, self.proj, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 3)

        def block(self, x):
            b, n, _ = x.shape
            q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4).unbind(0)
            y = F.scaled_dot_product_attention(q, k, v)
            return x + self.proj(y.transpose(1, 2).reshape(b, n, self.heads * self.dim))

        def forward(self, x):
            return self.head(self.block(self.block(x)))

    torch.manual_seed(0)
    model, x = Shared().double().eval(), torch.randn(2, 5, 16).double()
    structure = prunekit.trace(model, x)
    inner = [g for g in structure.groups if g.role == "attention.head_dim"]
    made = draft(model, x, structure=structure, include=[g.name for g in inner])
    assert made.plan.folds
    assert made.notes == ()
    expected = run(masked(model, inner, made.kept), x)
    prunekit.apply(model, made.plan)
    assert distance(expected, run(model, x)) < 1e-9


@pytest.mark.parametrize("need_weights", [True, False])
def test_torch_attention_is_pruned_in_place(need_weights):
    class Torch(nn.Module):
        def __init__(self):
            super().__init__()
            self.inp, self.head = nn.Linear(6, 16), nn.Linear(16, 3)
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

        def forward(self, x):
            x = self.inp(x)
            return self.head(x + self.attention(x, x, x, need_weights=need_weights)[0])

    torch.manual_seed(0)
    model, x = Torch().double().eval(), torch.randn(2, 5, 6).double()
    structure = prunekit.trace(model, x)
    inner = [g for g in structure.groups if g.role == "attention.head_dim"]
    assert inner
    made = draft(model, x, structure=structure, include=[g.name for g in inner])
    with prunekit.applied(model, made.plan):
        assert (model.attention.embed_dim, model.attention.head_dim) == (16, 4)
    made = draft(model, x, structure=structure)
    assert made.notes == ()
    expected = run(masked(model, structure.groups, made.kept), x)
    prunekit.apply(model, made.plan)
    assert distance(expected, run(model, x)) < 1e-9
    assert (model.attention.embed_dim, model.attention.num_heads) == (8, 2)


def test_control_flow_on_values_that_leaves_a_part_out_is_refused_by_place_and_the_model_is_untouched():
    model, x = case(lambda s, x: x if x.sum() > 0 else -x, 8)  # its scale is never read
    before = snapshot(model)
    with pytest.raises(NothingToPruneError, match="scale, which was not read for these inputs, may be bound to it"):
        prunekit.prune(model, x)
    assert differences(before, snapshot(model)) == []


def test_state_that_forward_writes_is_put_back():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)
            self.calls, self.seen, self.cache = 0, [], {}
            self.register_buffer("total", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            self.seen.append(tuple(x.shape))
            self.cache[x.shape[0]] = torch.ones(1)
            self.total += 1
            self.last = x
            return self.b(F.relu(self.a(x)))

    model, x = Counting(), torch.randn(2, 6)
    before = snapshot(model)
    prunekit.trace(model, x)
    assert differences(before, snapshot(model)) == []
    assert model.seen == []
    structure = prunekit.trace(model, x)
    symmetry(model, structure.groups, structure.inputs)
    assert differences(before, snapshot(model)) == []
