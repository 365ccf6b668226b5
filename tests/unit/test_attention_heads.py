"""Heads alone and positions within heads alone: both shrink, exactly, and the attributes follow."""

from __future__ import annotations

import math

import pytest
import timm
import torch
import torch.nn.functional as F
import transformers
from support.whole import check, edits
from torch import nn

X, OTHER = torch.randn(2, 5, 6).double(), torch.randn(3, 7, 6).double()
IMAGE = torch.randn(1, 3, 32, 32).double()
WORDS = {"input_ids": torch.arange(24).reshape(2, 12) % 40, "use_cache": False}
MORE_WORDS = {"input_ids": torch.arange(27).reshape(3, 9) % 40, "use_cache": False}


class Fused(nn.Module):
    def __init__(self, heads=2, dim=8):
        super().__init__()
        self.num_heads, self.head_dim, self.embed_dim = heads, dim, heads * dim
        self.inp, self.qkv, self.proj = nn.Linear(6, 16), nn.Linear(16, 3 * heads * dim), nn.Linear(heads * dim, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = self.inp(x)
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, self.embed_dim)
        return self.head(x + self.proj(y))


class Grouped(nn.Module):
    """Query heads share key heads; ``how`` the copies come about, ``rotary`` how positions are rotated in."""

    def __init__(self, heads=4, kv_heads=2, how="repeat", rotary=None, dim=4):
        super().__init__()
        self.num_heads, self.num_key_value_heads, self.head_dim, self.how, self.rotary = (
            heads,
            kv_heads,
            dim,
            how,
            rotary,
        )
        self.inp, self.head = nn.Linear(6, 16), nn.Linear(16, 3)
        self.q, self.o = nn.Linear(16, heads * dim), nn.Linear(heads * dim, 16)
        self.k, self.v = nn.Linear(16, kv_heads * dim), nn.Linear(16, kv_heads * dim)
        self.register_buffer("frequencies", 0.5 ** torch.arange(dim // 2).double())
        self.register_buffer("causal", torch.ones(8, 8).tril().bool()[None, None])

    def rotate(self, x):
        angle = torch.arange(x.shape[2])[:, None] * self.frequencies
        if self.rotary == "halves":
            angle, half = torch.cat([angle, angle], -1), x.shape[-1] // 2
            return x * angle.cos() + torch.cat([-x[..., half:], x[..., :half]], -1) * angle.sin()
        if self.rotary == "pairs":
            angle = angle.repeat_interleave(2, -1)
            turned = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
            return x * angle.cos() + turned * angle.sin()
        if self.rotary == "complex":
            turn = torch.polar(torch.ones_like(angle), angle)
            return torch.view_as_real(torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * turn).flatten(3)
        return x

    def attend(self, q, k, v):
        copies = self.num_heads // self.num_key_value_heads
        b, _, n, _ = q.shape
        if self.how == "repeat":
            k, v = k.repeat_interleave(copies, 1), v.repeat_interleave(copies, 1)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.causal[:, :, :n, :n])
        if self.how == "expand":
            k, v = (
                x[:, :, None].expand(b, self.num_key_value_heads, copies, n, self.head_dim).reshape(q.shape)
                for x in (k, v)
            )
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        if self.how == "enable_gqa":
            return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        if self.how == "broadcast":
            return (q @ k.transpose(-1, -2) / math.sqrt(self.head_dim)).softmax(-1) @ v
        q = q.view(b, self.num_key_value_heads, copies, n, self.head_dim)
        scores = torch.einsum("bkgnd,bkmd->bkgnm", q, k) / math.sqrt(self.head_dim)
        return torch.einsum("bkgnm,bkmd->bkgnd", scores.softmax(-1), v).reshape(b, self.num_heads, n, self.head_dim)

    def forward(self, x):
        x = self.inp(x)
        b, n, _ = x.shape
        q = self.rotate(self.q(x).view(b, n, self.num_heads, self.head_dim).transpose(1, 2))
        k = self.rotate(self.k(x).view(b, n, self.num_key_value_heads, self.head_dim).transpose(1, 2))
        v = self.v(x).view(b, n, self.num_key_value_heads, self.head_dim).transpose(1, 2)
        y = self.attend(q, k, v).transpose(1, 2).reshape(b, n, self.num_heads * self.head_dim)
        return self.head(x + self.o(y))


def test_fused_heads():
    model, plan, _ = check(Fused, X, OTHER, roles="attention.heads")
    assert edits(plan)[".num_heads"] == (2, 1)
    assert edits(plan)[".embed_dim"] == (16, 8)
    assert model.qkv.weight.shape == (24, 16)


def test_positions_within_fused_heads():
    model, plan, _ = check(Fused, X, OTHER, roles="attention.head_dim")
    assert edits(plan)[".head_dim"] == (8, 4)
    assert edits(plan)[".embed_dim"] == (16, 8)
    assert model.qkv.weight.shape == (24, 16)


@pytest.mark.parametrize("how", ["repeat", "expand", "enable_gqa", "einsum"])
def test_key_heads_go_with_their_query_heads(how):
    model, plan, _ = check(lambda: Grouped(4, 2, how), X, OTHER, roles="attention.heads")
    assert edits(plan)[".num_heads"] == (4, 2)
    assert edits(plan)[".num_key_value_heads"] == (2, 1)
    assert (model.q.weight.shape, model.k.weight.shape) == ((8, 16), (4, 16))


@pytest.mark.parametrize("how", ["repeat", "expand", "enable_gqa", "broadcast"])
def test_query_heads_that_share_one_key_head(how):
    model, plan, _ = check(lambda: Grouped(4, 1, how), X, OTHER, roles="attention.heads")
    assert edits(plan)[".num_heads"] == (4, 2)
    assert ".num_key_value_heads" not in edits(plan)
    assert (model.q.weight.shape, model.k.weight.shape) == ((8, 16), (4, 16))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("how", ["repeat", "expand", "enable_gqa"])
def test_positions_within_shared_heads(how, kv_heads):
    model, plan, _ = check(lambda: Grouped(4, kv_heads, how), X, OTHER, roles="attention.head_dim")
    assert edits(plan)[".head_dim"] == (4, 2)
    assert (model.q.weight.shape, model.k.weight.shape) == ((8, 16), (2 * kv_heads, 16))


@pytest.mark.parametrize("how", ["repeat", "enable_gqa"])
@pytest.mark.parametrize("rotary", ["halves", "pairs", "complex"])
def test_rotated_positions_go_in_pairs_and_keep_the_scale(rotary, how):
    model, plan, structure = check(lambda: Grouped(4, 2, how, rotary, dim=8), X, OTHER, roles="attention.head_dim")
    assert edits(plan)[".head_dim"] == (8, 4)
    assert plan.folds
    assert model.frequencies.shape == (2,)
    units = next(m for g in structure.groups for m in g.members if m.tensor == "q.weight" and g.role.endswith("_dim"))
    first = units.unit_of[:8].tolist()
    assert first == ([0, 1, 2, 3, 0, 1, 2, 3] if rotary == "halves" else [0, 0, 1, 1, 2, 2, 3, 3])


def test_pairs_and_single_positions_of_one_size_meet_at_any_ratio():
    """A pair takes two positions of q and k where v loses one: they agree on the size, not on the count."""
    _, plan, _ = check(lambda: Grouped(4, 2, "repeat", "pairs", dim=8), X, ratio=0.3)
    before, after = edits(plan)[".head_dim"]
    assert before == 8
    assert after % 2 == 0


class QueriesElsewhere(nn.Module):
    """The queries meet more than the keys, so that they cannot take the factor that keeps the scale."""

    def __init__(self, how, calls=1, heads=2, dim=8):
        super().__init__()
        self.how, self.calls, self.num_heads, self.head_dim, self.embed_dim = how, calls, heads, dim, heads * dim
        self.inp, self.qkv, self.proj = nn.Linear(6, 16), nn.Linear(16, 3 * heads * dim), nn.Linear(heads * dim, 16)
        self.relative, self.head = nn.Parameter(torch.randn(8, dim)), nn.Linear(16, 3)

    def attend(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        bias = None
        if self.how in ("relative", "relative both"):
            bias = torch.einsum("bhnc,mc->bhnm", q, self.relative[:n])
        if self.how == "relative both":
            bias = bias + torch.einsum("bhnc,mc->bhmn", k, self.relative[:n])
        if self.how == "pooled":
            q = torch.stack([q, q.roll(1, 2)]).amax(0)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return x + self.proj(y.transpose(1, 2).reshape(b, n, self.embed_dim))

    def forward(self, x):
        x = self.inp(x)
        for _ in range(self.calls):
            x = self.attend(x)
        return self.head(x)


@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("how", ["plain", "relative", "pooled"])
def test_keys_take_the_factor_where_queries_meet_more_than_them(how, calls, caplog):
    _, plan, _ = check(lambda: QueriesElsewhere(how, calls), X, OTHER, roles="attention.head_dim")
    assert {(fold.tensor, round(fold.factor, 6)) for fold in plan.folds} == (
        {(f"qkv.{part}", round(2**-0.25, 6)) for part in ("weight", "bias")}
        if how == "plain"
        else {(f"qkv.{part}", round(2**-0.5, 6)) for part in ("weight", "bias")}
    )
    assert all(min(fold.rows) >= 8 for fold in plan.folds) == (how != "plain")  # 8 queries are left
    assert "a constant changes" not in caplog.text


def test_a_scale_that_neither_side_can_take_is_reported(caplog):
    check(lambda: QueriesElsewhere("relative both"), X, OTHER, by_mask=False, roles="attention.head_dim")
    assert "a constant changes" in caplog.text


class TorchAttention(nn.Module):
    def __init__(self, heads=4, **how):
        super().__init__()
        self.inp, self.head = nn.Linear(6, 16), nn.Linear(16, 3)
        self.attention = nn.MultiheadAttention(16, heads, batch_first=True, **how)

    def forward(self, x):
        x = self.inp(x)
        return self.head(x + self.attention(x, x, x, need_weights=False)[0])


def test_torch_attention_loses_heads_with_its_embedding_or_without():
    for role, sizes in {"attention.heads": (2, 4), "attention.head_dim": (4, 2)}.items():
        model, _, _ = check(TorchAttention, X, roles=role)
        assert (model.attention.num_heads, model.attention.head_dim, model.attention.embed_dim) == (*sizes, 16)
    model, plan, _ = check(TorchAttention, X, OTHER, roles=["embedding", "attention.heads"])
    assert edits(plan)["attention.num_heads"] == (4, 2)
    assert edits(plan)["attention.embed_dim"] == (16, 8)
    assert model.attention.in_proj_weight.shape == (24, 8)
    model, plan, _ = check(TorchAttention, X, OTHER, roles=["embedding", "attention.head_dim"])
    assert "attention.num_heads" not in edits(plan)


def test_torch_attention_shows_its_new_sizes():
    model, _, _ = check(TorchAttention, X, OTHER, roles=["embedding", "attention.head_dim"])
    assert (model.attention.head_dim, model.attention.kdim, model.attention.vdim) == (2, 8, 8)


def vit(**how):
    return timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3, num_classes=5, **how
    )


@pytest.mark.parametrize("how", [{}, {"qk_norm": True, "init_values": 0.1}])
def test_vision_transformers(how):
    _, plan, _ = check(lambda: vit(**how), IMAGE, IMAGE.repeat(2, 1, 1, 1), roles="attention.heads")
    assert edits(plan)["blocks.1.attn.num_heads"] == (3, 2)
    _, plan, _ = check(lambda: vit(**how), IMAGE, roles="attention.head_dim", by_mask=not how)
    assert edits(plan)["blocks.1.attn.head_dim"] == (16, 8)


def llama(kv_heads=2):
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=kv_heads, max_position_embeddings=32,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_decoders_with_rotary_positions(kv_heads):
    model, _, _ = check(lambda: llama(kv_heads), WORDS, MORE_WORDS, roles="attention.heads", dtype=torch.float32)
    attention = model.model.layers[0].self_attn
    assert attention.q_proj.weight.shape == (16, 32)
    assert attention.k_proj.weight.shape == (8 * max(1, kv_heads // 2), 32)
    model, plan, _ = check(lambda: llama(kv_heads), WORDS, roles="attention.head_dim", dtype=torch.float32)
    assert edits(plan)["model.layers.0.self_attn.head_dim"] == (8, 4)


def test_decoders_with_fused_layers():
    config = transformers.GPT2Config(
        vocab_size=40, n_positions=16, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    for role in ("attention.heads", "attention.head_dim"):
        model, plan, structure = check(lambda: transformers.GPT2LMHeadModel(config), WORDS, MORE_WORDS, roles=role)
        assert edits(plan)["transformer.h.0.attn.split_size"] == (32, 16)
        assert model.transformer.h[0].attn.c_attn.weight.shape == (32, 48)
    # an activation that is written out as a sum is no residual connection
    assert {g.role for g in structure.groups if ".mlp." in g.name} == {"mlp.hidden"}
