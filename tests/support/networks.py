"""Seeded random networks out of every kind of block that people build models from; small enough to run in milliseconds.

``build(seed)`` gives a model in eval mode and the inputs that it is called with. Blocks keep the layout of what they
read: images are (batch, channels, height, width), tokens are (batch, length, width).
"""

from __future__ import annotations

import math
import random

import torch
import torch.nn.functional as F
from torch import nn


class ConvBN(nn.Module):
    def __init__(self, c, out, r):
        super().__init__()
        self.conv = nn.Conv2d(c, out, r.choice([1, 3]), padding="same", bias=r.random() < 0.5)
        self.bn = nn.BatchNorm2d(out)
        self.act = r.choice([nn.ReLU, nn.SiLU, nn.Sigmoid, nn.LeakyReLU])()

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class Residual(nn.Module):
    def __init__(self, c, r):
        super().__init__()
        h = r.choice([4, 6, 10])
        self.a, self.b = ConvBN(c, h, r), ConvBN(h, c, r)
        self.gamma = nn.Parameter(torch.randn(c, 1, 1)) if r.random() < 0.4 else None

    def forward(self, x):
        y = self.b(self.a(x))
        return x + (y if self.gamma is None else y * self.gamma)


class Depthwise(nn.Module):
    def __init__(self, c, r):
        super().__init__()
        times = r.choice([1, 1, 2])
        self.depth = nn.Conv2d(c, c * times, 3, padding=1, groups=c)
        self.bn = nn.BatchNorm2d(c * times)
        self.point = nn.Conv2d(c * times, c, 1)

    def forward(self, x):
        return self.point(F.relu(self.bn(self.depth(x))))


class Grouped(nn.Module):
    def __init__(self, c, r):
        super().__init__()
        g = r.choice([2, 4])
        h = g * r.choice([2, 3])
        self.reduce = nn.Conv2d(c, h, 1)
        self.mix = nn.Conv2d(h, 2 * h, 3, padding=1, groups=g)
        self.expand = nn.Conv2d(2 * h, c, 1)

    def forward(self, x):
        return self.expand(F.gelu(self.mix(self.reduce(x))))


class GroupNormed(nn.Module):
    def __init__(self, c, r):
        super().__init__()
        g = r.choice([2, 3])
        h = g * r.choice([2, 4])
        self.a = nn.Conv2d(c, h, 3, padding=1)
        self.norm = nn.GroupNorm(g, h)
        self.b = nn.Conv2d(h, c, 1)

    def forward(self, x):
        return x + self.b(F.silu(self.norm(self.a(x))))


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, c, r):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(c, r.choice([2, 4]), 1), None
        self.expand = nn.Conv2d(self.reduce.out_channels, c, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


class Cat(nn.Module):
    def __init__(self, c, r):
        super().__init__()
        a, b = r.choice([2, 5]), r.choice([3, 4])
        self.left, self.right = ConvBN(c, a, r), ConvBN(c, b, r)
        self.skip = r.random() < 0.5
        self.join = nn.Conv2d(a + b + (c if self.skip else 0), c, 1)

    def forward(self, x):
        parts = [self.left(x), self.right(x)]
        return self.join(torch.cat([*parts, x] if self.skip else parts, dim=1))


class Chunk(nn.Module):
    def __init__(self, c, r):
        super().__init__()
        self.a, self.b = nn.Conv2d(c, 2 * r.choice([3, 4]), 1), None
        self.b = nn.Conv2d(self.a.out_channels // 2, c, 1)

    def forward(self, x):
        value, gate = self.a(x).chunk(2, dim=1)
        return self.b(value * torch.sigmoid(gate))


class Split(nn.Module):
    def __init__(self, c, r):
        super().__init__()
        self.left, self.right = r.choice([3, 4]), r.choice([4, 6])
        self.a = nn.Conv2d(c, self.left + self.right, 1)
        self.b = nn.Conv2d(self.left, self.left, 3, padding=1)
        self.join = nn.Conv2d(self.left + self.right, c, 1)

    def forward(self, x):
        left, right = torch.split(self.a(x), [self.left, self.right], dim=1)
        return x + self.join(torch.cat([right, F.relu(self.b(left))], dim=1))


class Shuffle(nn.Module):
    """Channel shuffle by reshape, as ShuffleNet does it."""

    def __init__(self, c, r):
        super().__init__()
        self.groups = 2
        h = 2 * r.choice([3, 4])
        self.a, self.b = nn.Conv2d(c, h, 1), nn.Conv2d(h, c, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.a(x))
        n, c, h, w = x.shape
        x = x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.b(x)


class Pixels(nn.Module):
    def __init__(self, c, r):
        super().__init__()
        h = r.choice([3, 4])
        self.up, self.shuffle = nn.Conv2d(c, 4 * h, 1), nn.PixelShuffle(2)
        self.down = nn.Conv2d(h, c, 3, stride=2, padding=1)

    def forward(self, x):
        return self.down(F.relu(self.shuffle(self.up(x))))


class Transposed(nn.Module):
    def __init__(self, c, r):
        super().__init__()
        h = r.choice([4, 6])
        self.up = nn.ConvTranspose2d(c, h, 2, stride=2, groups=r.choice([1, 2]) if c % 2 == 0 else 1)
        self.bn, self.down = nn.BatchNorm2d(h), nn.Conv2d(h, c, 2, stride=2)

    def forward(self, x):
        return self.down(F.relu(self.bn(self.up(x))))


class ChannelNorm(nn.Module):
    """LayerNorm over channels, written out by hand as SAM and ConvNeXt do."""

    def __init__(self, c, r):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(c) + 0.5), nn.Parameter(torch.randn(c))

    def forward(self, x):
        u = x.mean(1, keepdim=True)
        s = (x - u).pow(2).mean(1, keepdim=True)
        return self.weight[:, None, None] * (x - u) / torch.sqrt(s + 1e-6) + self.bias[:, None, None]


class Scaled(nn.Module):
    """A buffer multiplied and a bare parameter added."""

    def __init__(self, c, r):
        super().__init__()
        self.register_buffer("scale", torch.rand(1, c, 1, 1) + 0.5)
        self.shift = nn.Parameter(torch.randn(1, c, 1, 1))

    def forward(self, x):
        return x * self.scale + self.shift


class Dense(nn.Module):
    def __init__(self, c, r):
        super().__init__()
        self.layers = nn.ModuleList([ConvBN(c, 3, r), ConvBN(c + 3, 4, r)])
        self.join = nn.Conv2d(c + 7, c, 1)

    def forward(self, x):
        seen = [x]
        for layer in self.layers:
            seen.append(layer(torch.cat(seen, 1)))
        return self.join(torch.cat(seen, 1))


IMAGE_BLOCKS = [
    Residual, Depthwise, Grouped, GroupNormed, Gate, Cat, Chunk, Split, Shuffle, Pixels, Transposed, ChannelNorm,
    Scaled, Dense,
]  # fmt: skip


class RMSNorm(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(c) + 0.5)

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def norm(c, r):
    return r.choice([nn.LayerNorm, RMSNorm, nn.RMSNorm, lambda _: nn.Identity()])(c)


class MLP(nn.Module):
    def __init__(self, c, r):
        super().__init__()
        h = r.choice([6, 8, 12])
        self.norm, self.fc1, self.fc2 = norm(c, r), nn.Linear(c, h), nn.Linear(h, c, bias=r.random() < 0.5)
        self.gamma = nn.Parameter(torch.randn(c)) if r.random() < 0.3 else None

    def forward(self, x):
        y = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return x + (y if self.gamma is None else self.gamma * y)


class GatedMLP(nn.Module):
    def __init__(self, c, r):
        super().__init__()
        h = r.choice([6, 8])
        self.norm, self.up, self.down = norm(c, r), nn.Linear(c, 2 * h), nn.Linear(h, c)

    def forward(self, x):
        a, b = self.up(self.norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(a) * b)


class FusedAttention(nn.Module):
    """qkv in one layer; the scale is kept as a float, taken from the head size in forward, or left to torch."""

    def __init__(self, c, r):
        super().__init__()
        self.num_heads, self.head_dim = r.choice([2, 3]), r.choice([4, 6])
        inner = self.num_heads * self.head_dim
        self.kind = r.choice(["kept", "forward", "sdpa"])
        self.scale = self.head_dim**-0.5
        self.norm, self.qkv, self.proj = norm(c, r), nn.Linear(c, 3 * inner, bias=r.random() < 0.7), nn.Linear(inner, c)

    def forward(self, x):
        b, n, _ = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.kind == "sdpa":
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            scale = self.scale if self.kind == "kept" else 1 / math.sqrt(self.head_dim)
            y = ((q * scale) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        return x + self.proj(y.transpose(1, 2).reshape(b, n, self.num_heads * self.head_dim))


class GroupedAttention(nn.Module):
    """Several query heads share a key and value head; optionally with rotary positions."""

    def __init__(self, c, r):
        super().__init__()
        self.kv_heads, self.repeats, self.head_dim = r.choice([2, 3]), r.choice([1, 2]), 4
        inner = self.kv_heads * self.head_dim
        self.norm = norm(c, r)
        self.q, self.k = nn.Linear(c, inner * self.repeats), nn.Linear(c, inner)
        self.v, self.o = nn.Linear(c, inner), nn.Linear(inner * self.repeats, c)
        self.rotary = r.random() < 0.5
        self.register_buffer("inv_freq", 0.5 ** torch.arange(self.head_dim // 2).double(), persistent=False)

    def rotate(self, x):
        angle = torch.outer(torch.arange(x.shape[2]).to(self.inv_freq), self.inv_freq)
        angle = torch.cat([angle, angle], -1)
        a, b = x.chunk(2, dim=-1)
        return x * angle.cos() + torch.cat([-b, a], -1) * angle.sin()

    def forward(self, x):
        b, n, _ = x.shape
        y = self.norm(x)
        q = self.q(y).view(b, n, -1, self.head_dim).transpose(1, 2)
        k = self.k(y).view(b, n, -1, self.head_dim).transpose(1, 2)
        v = self.v(y).view(b, n, -1, self.head_dim).transpose(1, 2)
        if self.rotary:
            q, k = self.rotate(q), self.rotate(k)
        k, v = k.repeat_interleave(self.repeats, 1), v.repeat_interleave(self.repeats, 1)
        y = torch.softmax(q @ k.transpose(2, 3) * 0.3, -1) @ v
        return x + self.o(y.transpose(1, 2).reshape(b, n, -1))


class Einsum(nn.Module):
    def __init__(self, c, r):
        super().__init__()
        h = r.choice([4, 6])
        self.down, self.up = nn.Parameter(torch.randn(c, h) / 3), nn.Parameter(torch.randn(h, c) / 3)

    def forward(self, x):
        return x + torch.einsum("bnh,hc->bnc", F.relu(torch.einsum("bnc,ch->bnh", x, self.down)), self.up)


class Torch(nn.Module):
    """nn.MultiheadAttention, with its attributes and its own reshapes."""

    def __init__(self, c, r):
        super().__init__()
        self.attention = nn.MultiheadAttention(c, 2 if c % 2 == 0 else 1, batch_first=True)

    def forward(self, x):
        return x + self.attention(x, x, x, need_weights=False)[0]


class TokenConv(nn.Module):
    def __init__(self, c, r):
        super().__init__()
        h = r.choice([4, 6])
        self.a, self.bn, self.b = nn.Conv1d(c, h, 3, padding=1), nn.BatchNorm1d(h), nn.Conv1d(h, c, 1)

    def forward(self, x):
        return x + self.b(F.relu(self.bn(self.a(x.transpose(1, 2))))).transpose(1, 2)


TOKEN_BLOCKS = [MLP, GatedMLP, FusedAttention, GroupedAttention, Einsum, Torch, TokenConv]


class Net(nn.Module):
    """``source`` is what it reads: an image, an image in patches, token numbers."""

    def __init__(self, r):
        super().__init__()
        self.source = r.choice(["image", "image", "patches", "numbers"])
        c = r.choice([8, 12])
        tokens = self.source != "image"
        kinds = TOKEN_BLOCKS if tokens else IMAGE_BLOCKS
        blocks = [r.choice(kinds)(c, r) for _ in range(r.randint(1, 4))]
        self.tied = False
        if self.source == "numbers":
            self.stem = nn.Embedding(11, c)
            self.positions = nn.Parameter(torch.randn(1, 6, c))
            self.tied = r.random() < 0.4
        elif tokens:
            self.stem = nn.Conv2d(3, c, 4, stride=4)
            self.token = nn.Parameter(torch.randn(1, 1, c))
            self.positions = nn.Parameter(torch.randn(1, 5, c))
        else:
            self.stem = ConvBN(3, c, r)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(c) if tokens and r.random() < 0.5 else nn.Identity()
        self.flat = not tokens and r.random() < 0.4
        self.head = nn.Linear(c * 64 if self.flat else c, 11 if tokens else 5, bias=not self.tied)
        if self.tied:
            self.head.weight = self.stem.weight

    def forward(self, x):
        x = self.stem(x)
        if self.source == "numbers":
            x = x + self.positions
        elif self.source == "patches":
            x = x.flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        x = self.norm(self.blocks(x))
        if self.source == "image":
            x = x.flatten(1) if self.flat else x.mean((2, 3))
        return self.head(x)


def build(seed):
    """A model in eval mode with statistics of norms that are not trivial, and its inputs."""
    r = random.Random(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Net(r).double().eval()
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        with torch.no_grad():
            for p in model.parameters():
                if p.dim() == 1:
                    p.add_(0.3 * torch.randn_like(p))
        x = torch.randint(0, 11, (2, 6)) if model.source == "numbers" else torch.randn(2, 3, 8, 8).double()
    return model, (x,)
