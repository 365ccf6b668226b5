"""Models, groups and samples that scorers are tested on, and the group reduction as plain loops."""

from __future__ import annotations

import torch
from torch import nn

from prunekit.coupling.groups import Group, Member
from prunekit.inputs import Inputs, Sample

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


def close(ours: torch.Tensor, reference: list[float]) -> bool:
    theirs = torch.tensor(reference, dtype=torch.float64)
    return torch.allclose(ours, theirs, rtol=1e-4, atol=float(theirs.abs().max()) * 1e-6)


class Outputs(nn.Module):
    def __init__(self, choose):
        super().__init__()
        self.a, self.choose = nn.Linear(4, 3), choose

    def forward(self, x):
        return self.choose(self.a(x))


LINEAR = Group("a.weight:0", "channels", 3, (Member("a.weight", 0, identity(3)),))
