"""What a model may contain: torch's layers and the ways people join them, each exact or frozen with its reason."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from support.whole import check, edits, frozen
from torch import nn

X, OTHER = torch.randn(2, 5, 6).double(), torch.randn(3, 4, 6).double()
IMAGE, IMAGES = torch.randn(2, 3, 8, 8).double(), torch.randn(3, 3, 8, 8).double()


class SelfAttention(nn.Module):
    def __init__(self, need_weights=False, **how):
        super().__init__()
        self.inp, self.head, self.need_weights = nn.Linear(6, 16), nn.Linear(16, 3), need_weights
        self.attention = nn.MultiheadAttention(16, 2, **how)

    def forward(self, x):
        x = self.inp(x)
        return self.head(x + self.attention(x, x, x, need_weights=self.need_weights)[0])


class CrossAttention(nn.Module):
    def __init__(self, widths=(12, 10), **how):
        super().__init__()
        self.inp, self.head = nn.Linear(6, 16), nn.Linear(16, 3)
        self.memory, self.value = nn.Linear(6, widths[0]), nn.Linear(6, widths[1])
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True, kdim=widths[0], vdim=widths[1], **how)

    def forward(self, x):
        y = self.inp(x)
        return self.head(y + self.attention(y, self.memory(x), self.value(x))[0])


class SharedMemory(CrossAttention):
    def __init__(self):
        super().__init__(widths=(16, 16))

    def forward(self, x):
        y, memory = self.inp(x), self.memory(x)
        return self.head(y + self.attention(y, memory, memory, need_weights=False)[0])


ATTENTION = {
    "sequence first": SelfAttention,
    "weights returned": lambda: SelfAttention(True, batch_first=True),
    "extra key and zeros": lambda: SelfAttention(batch_first=True, add_bias_kv=True, add_zero_attn=True),
    "extra key and weights": lambda: SelfAttention(True, batch_first=True, add_bias_kv=True, add_zero_attn=True),
    "no bias": lambda: SelfAttention(batch_first=True, bias=False),
    "other widths of keys and values": CrossAttention,
    "other widths and extra key": lambda: CrossAttention(add_bias_kv=True),
    "keys and values of one width": lambda: CrossAttention(widths=(16, 16)),
    "keys from a memory": SharedMemory,
}


@pytest.mark.parametrize("name", ATTENTION)
def test_torch_attention_keeps_its_function(name):
    model, plan, _ = check(ATTENTION[name], X, OTHER)
    assert edits(plan)["attention.embed_dim"] == (16, 8)
    assert plan.folds
    assert model.attention.out_proj.weight.shape == (8, 8)


class Encoder(nn.Module):
    def __init__(self, masks=False, **how):
        super().__init__()
        self.inp, self.head, self.masks = nn.Linear(6, 16), nn.Linear(16, 3), masks
        layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, dropout=0.0, **how)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x):
        if not self.masks:
            return self.head(self.encoder(self.inp(x)))
        causal = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device, dtype=x.dtype)
        return self.head(self.encoder(self.inp(x), mask=causal, is_causal=True))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp, self.memory, self.head = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(16, 3)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 2, 24, batch_first=True, dropout=0.0), 2)

    def forward(self, x):
        return self.head(self.decoder(self.inp(x), self.memory(x)))


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(16, 3)
        self.transformer = nn.Transformer(16, 2, 1, 1, 24, batch_first=True, dropout=0.0)

    def forward(self, x):
        return self.head(self.transformer(self.a(x), self.b(x)))


TRANSFORMERS = {
    "encoder": Encoder,
    "encoder, norm first": lambda: Encoder(norm_first=True, activation="gelu"),
    "encoder with masks": lambda: Encoder(masks=True),
    "decoder": Decoder,
    "encoder and decoder": Both,
}


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning")
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_torch_transformers(name):
    _, plan, _ = check(TRANSFORMERS[name], X, OTHER)
    assert {w.role for w in plan.widths} == {"embedding", "attention.head_dim", "mlp.hidden"}
    assert len(plan.folds) >= 1


class Bag(nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.bag, self.fc, self.head = nn.EmbeddingBag(20, 8, mode=mode), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x, offsets=None):
        return self.head(F.relu(self.fc(self.bag(x, offsets))))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_words(mode):
    model, _, structure = check(lambda: Bag(mode), torch.randint(0, 20, (2, 5)), torch.randint(0, 20, (3, 7)))
    assert model.bag.weight.shape == (20, 4)
    assert "looked up by index" in frozen(structure, "bag.weight:0")
    check(lambda: Bag(mode), (torch.randint(0, 20, (10,)), torch.tensor([0, 4])))


@pytest.mark.parametrize("x", [X, X[:, 0]])
def test_bilinear_layers(x):
    class Bilinear(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Linear(6, 8), nn.Linear(6, 10), nn.Linear(12, 3)
            self.join = nn.Bilinear(8, 10, 12)

        def forward(self, x):
            return self.head(F.relu(self.join(F.relu(self.a(x)), F.relu(self.b(x)))))

    model, _, _ = check(Bilinear, x)
    assert model.join.weight.shape == (6, 4, 5)


def test_lists_and_dicts_of_parameters():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.list = nn.ParameterList([torch.randn(6, 8), torch.randn(8, 10)])
            self.dict = nn.ParameterDict({"weight": torch.randn(10, 3), "bias": torch.randn(10)})
            self.scale = nn.Parameter(torch.randn(8))

        def forward(self, x):
            return (
                F.relu(F.relu(x @ self.list[0] * self.scale) @ self.list[1] + self.dict["bias"]) @ self.dict["weight"]
            )

    model, _, _ = check(Bare, X, OTHER)
    assert [tuple(p.shape) for p in model.list] == [(6, 4), (4, 5)]
    assert model.dict["weight"].shape == (5, 3)


def test_a_relative_position_bias_with_scaled_cosines():
    class Window(nn.Module):
        def __init__(self, heads=2, dim=4, length=5):
            super().__init__()
            self.heads, self.dim = heads, dim
            self.inp, self.head = nn.Linear(6, 16), nn.Linear(16, 3)
            self.qkv, self.proj = nn.Linear(16, 3 * heads * dim), nn.Linear(heads * dim, 16)
            self.table, self.scale = (
                nn.Parameter(torch.randn(2 * length - 1, heads)),
                nn.Parameter(torch.randn(heads, 1, 1)),
            )
            at = torch.arange(length)
            self.register_buffer("index", at[:, None] - at[None] + length - 1)

        def forward(self, x):
            x = self.inp(x)
            b, n, _ = x.shape
            q, k, v = self.qkv(x).view(b, n, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
            scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2) * self.scale.exp()
            scores = scores + self.table[self.index.view(-1)].view(n, n, -1).permute(2, 0, 1)
            return self.head(x + self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, -1)))

    model, plan, _ = check(Window, X, roles="attention.heads")
    assert (model.table.shape, model.scale.shape) == ((9, 1), (1, 1, 1))
    _, plan, structure = check(Window, X, roles="attention.head_dim", by_mask=False)
    assert edits(plan)[".dim"] == (4, 2)
    assert next(g for g in structure.groups if g.role == "attention.head_dim").normalised


class Between(nn.Module):
    """conv a (``wide``) -> ``middle`` -> conv b -> head; ``state`` gives what the middle needs."""

    def __init__(self, middle, wide=8, read=None, **state):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, wide, 3, padding=1), nn.Conv2d(read or wide, 8, 1)
        self.head, self.middle = nn.Linear(8, 4), middle
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, copy.deepcopy(value))

    def forward(self, x):
        return self.head(torch.tanh(self.b(self.middle(self, self.a(x)))).mean((2, 3)))


def between(middle, wide=8, read=None, **state):
    return lambda: Between(middle, wide, read, **state)


def written_by_attribute(s, x):
    out = x.clone()
    out[:, : s.count] = s.part(x)
    return out


def written_by_size(s, x):
    part, out = s.part(x), x.clone()
    out[:, : part.shape[1]] = part
    return out


def put_side_by_side(s, x):
    part = s.part(x)
    out = x.new_zeros(x.shape[0], x.shape[1] + part.shape[1], *x.shape[2:])
    out[:, : part.shape[1]] = part
    out[:, part.shape[1] :] = x
    return out


def added_in_place(s, x):
    x = x * 1.0
    x += s.same(x.clone())
    return x


def gated(s, x):
    return x * s.gate(x.mean((2, 3)))[:, :, None, None]


def grid_sampled(s, x):
    turn = torch.eye(2, 3, dtype=x.dtype, device=x.device)[None].expand(x.shape[0], -1, -1)
    return F.grid_sample(x, F.affine_grid(turn, list(x.shape), align_corners=False), align_corners=False)


def gathered(s, x):
    tokens = x.flatten(2).transpose(1, 2)
    best = s.score(tokens).squeeze(-1).topk(16, dim=1).indices
    return tokens.gather(1, best[:, :, None].expand(-1, -1, tokens.shape[-1])).transpose(1, 2).unflatten(2, (4, 4))


def scattered(s, x):
    return torch.zeros_like(x).scatter_add(2, s.order.view(1, 1, 8, 1).expand(x.shape), x)


def distances(s, x):
    tokens = x.flatten(2).transpose(1, 2)
    return x * torch.cdist(tokens, tokens).mean((1, 2))[:, None, None, None]


ORDER = torch.tensor([0, 5, 2, 1, 3, 4, 7, 6])
PART, SAME = nn.Conv2d(8, 3, 1), nn.Conv2d(8, 8, 1)
GATE = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8), nn.Sigmoid())
MASK = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0])

FOLLOWED = {
    "mask in a float buffer": between(lambda s, x: x * s.mask.view(1, -1, 1, 1), mask=MASK),
    "squeeze and excitation": between(gated, gate=GATE),
    "layer scale": between(lambda s, x: x + s.scale[:, None, None] * s.same(x), scale=nn.Parameter(MASK), same=SAME),
    "transposed convolution in groups": between(lambda s, x: s.up(x), up=nn.ConvTranspose2d(8, 8, 2, 2, groups=2)),
    "transposed depthwise": between(lambda s, x: s.up(x), up=nn.ConvTranspose2d(8, 8, 2, 2, groups=8)),
    "more groups out": between(lambda s, x: s.up(x), read=12, up=nn.ConvTranspose2d(8, 12, 2, 2, groups=4)),
    "convolution in 3 dimensions": between(
        lambda s, x: s.deep(x[:, :, None])[:, :, 0], deep=nn.Conv3d(8, 8, (1, 3, 3), padding=(0, 1, 1))
    ),
    "unfold and fold": between(lambda s, x: F.fold(F.unfold(x, 3, padding=1), (8, 8), 3, padding=1)),
    "unfold to channels": between(lambda s, x: F.unfold(x, 2, stride=2).view(x.shape[0], -1, 4, 4), read=32),
    "pixel shuffle": between(lambda s, x: F.pixel_shuffle(x, 2), 16, 4),
    "pixel unshuffle": between(lambda s, x: F.pixel_unshuffle(x, 2), 4, 16),
    "root mean square norm": between(
        lambda s, x: s.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), norm=nn.RMSNorm(8)
    ),
    "normalised to unit length": between(lambda s, x: F.normalize(x, dim=1)),
    "group norm after cat": between(
        lambda s, x: s.norm(torch.cat([x, s.same(x)], 1)), read=16, norm=nn.GroupNorm(4, 16), same=SAME
    ),
    "softmax over channels": between(lambda s, x: x.softmax(1)),
    "largest and mean channel as a gate": between(
        lambda s, x: x * s.gate(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)),
        gate=nn.Conv2d(2, 1, 3, padding=1),
    ),
    "maxout": between(lambda s, x: x.view(x.shape[0], 2, -1, *x.shape[2:]).amax(1), read=4),
    "a weight for each channel": between(lambda s, x: s.prelu(x), prelu=nn.PReLU(8)),
    "one weight for all": between(lambda s, x: s.prelu(x), prelu=nn.PReLU(1)),
    "in-place sum": between(added_in_place, same=SAME),
    "written up to an attribute": between(written_by_attribute, part=PART, count=3),
    "written up to a size": between(written_by_size, part=PART),
    "put side by side": between(put_side_by_side, read=11, part=PART),
    "rows copied by index": between(
        lambda s, x: x.index_copy(2, s.order[:3], s.same(x)[:, :, :3]), order=ORDER, same=SAME
    ),
    "rows added by index": between(lambda s, x: x.index_add(2, s.order, x), order=ORDER),
    "rows scattered": between(scattered, order=ORDER),
    "tokens gathered": between(gathered, score=nn.Linear(8, 1)),
    "tiled": between(lambda s, x: x.tile(1, 2, 1, 1), read=16),
    "each channel repeated": between(lambda s, x: x.repeat_interleave(2, 1), read=16),
    "every second channel": between(lambda s, x: x[:, 1::2], read=4),
    "flipped": between(lambda s, x: x.flip(1)),
    "zeros around the channels": between(lambda s, x: F.pad(x, (0, 0, 0, 0, 2, 2)), read=12),
    "circular padding": between(lambda s, x: F.pad(x, (1, 1, 1, 1), mode="circular")),
    "max pooling undone": between(lambda s, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)),
    "pooling by a power": between(lambda s, x: F.lp_pool2d(x, 2, 2)),
    "sampled on a grid": between(grid_sampled),
    "distances between pixels": between(distances),
    "complex numbers": between(
        lambda s, x: torch.view_as_real(torch.view_as_complex(torch.stack([x, 2 * x], -1)) * (1 + 2j)).sum(-1)
    ),
}  # fmt: skip

BOUND = {
    "pooling over channels": (
        lambda s, x: F.adaptive_avg_pool1d(x.flatten(2).transpose(1, 2), 4).transpose(1, 2).unflatten(2, (8, 8)),
        4,
        "a window slides over it",
    ),
    "halves taken by torch": (
        lambda s, x: torch.cat(x.tensor_split(2, 1)[::-1], 1), 8, "a part of it is taken by position"
    ),
    "channels copied by index": (
        lambda s, x: x.index_copy(1, s.order[:3], s.part(x)), 8, "positions along it are written by index"
    ),
    "channels scattered": (
        lambda s, x: torch.zeros_like(x).scatter(1, s.order.view(1, 8, 1, 1).expand(x.shape), x),
        8,
        "positions along it are written by index",
    ),
    "one channel written back": (
        lambda s, x: torch.select_scatter(x, x.mean(1), 1, 2), 8, "a part of it is written by position"
    ),
    "differences of neighbours": (lambda s, x: x.diff(dim=1), 7, "a part of it is taken by position"),
    "unpacked channel by channel": (lambda s, x: torch.stack(x.unbind(1), 1), 8, "unpacked position by position"),
    "transformed over channels": (lambda s, x: torch.fft.fft(x, dim=1).abs(), 8, "aten._fft_r2c mixes the positions"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLLOWED)
def test_what_can_be_followed_shrinks_exactly(name):
    _, plan, _ = check(FOLLOWED[name], IMAGE, IMAGES)
    assert any(w.group.startswith("a.weight:0") for w in plan.widths), plan.explain()


@pytest.mark.parametrize("name", BOUND)
def test_what_cannot_be_followed_is_frozen_with_its_reason(name):
    middle, read, reason = BOUND[name]
    model, _, structure = check(between(middle, read=read, order=ORDER, part=PART), IMAGE, IMAGES)
    told = frozen(structure, "a.weight:0")
    assert reason in told
    assert "test_structures.py:" in told
    assert (model.a.out_channels, model.b.out_channels) == (8, 4)


def test_a_mask_in_a_bool_buffer_is_cut():
    model, _, _ = check(between(lambda s, x: x.masked_fill(s.off.view(1, -1, 1, 1), 0.0), off=MASK.bool()), IMAGE)
    assert model.off.shape == (4,)


def test_flattened_images_shrink_into_the_first_linear_layer():
    class Flat(nn.Sequential):
        def __init__(self):
            super().__init__(
                nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 6),
                nn.ReLU(), nn.Linear(6, 2),
            )  # fmt: skip

    model, _, _ = check(Flat, IMAGE, IMAGES)
    assert (model[4].in_features, model[4].out_features) == (16, 3)


def test_of_halves_cut_at_a_literal_the_second_may_shrink():
    swapped = between(lambda s, x: torch.cat([x[:, 4:], x[:, :4]], 1))
    model, plan, structure = check(swapped, IMAGE, IMAGES)
    assert "its size is written as a constant in forward" in frozen(structure, "a.weight:0")
    assert [(w.before, w.after) for w in plan.widths if w.group == "a.weight:0"] == [(4, 2)]
    assert model.a.out_channels == 6
