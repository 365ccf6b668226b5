"""SAM's image encoder, tiny: what the slimming recipe rests on."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from support.compare import differences, distance, layer_macs, masked, measured, run, snapshot
from support.drafts import draft
from torch import nn

import prunekit
from prunekit.planning.symmetry_check import symmetry


def encoder(seed=0, depth=2):
    torch.manual_seed(seed)
    model = ImageEncoderViT(
        img_size=64,
        patch_size=8,
        embed_dim=48,
        depth=depth,
        num_heads=4,
        mlp_ratio=2,
        out_chans=16,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        rel_pos_zero_init=False,
        window_size=3,
        global_attn_indexes=(depth - 1,),
    )
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "rel_pos" in name or name == "pos_embed" or p.dim() == 1:
                p.add_(0.3 * torch.randn_like(p))
    return model.double().eval(), torch.randn(1, 3, 64, 64).double()


@pytest.fixture(scope="module")
def traced():
    model, x = encoder()
    return prunekit.trace(model, x)


def by_role(structure, role):
    return [g for g in structure.groups if g.role == role]


def test_groups_are_the_sub_structures_of_the_paper(traced):
    (embedding,) = by_role(traced, "embedding")
    assert embedding.size == 48
    tensors = {m.tensor for m in embedding.members}
    assert {"patch_embed.proj.weight", "pos_embed", "neck.0.weight"} <= tensors
    assert {f"blocks.{i}.{n}" for i in range(2) for n in ("norm1.bias", "attn.proj.bias", "mlp.lin2.weight")} <= tensors
    assert [(g.size, g.block) for g in by_role(traced, "attention.heads")] == [
        (4, "blocks.0.attn.qkv"),
        (4, "blocks.1.attn.qkv"),
    ]
    assert [g.size for g in by_role(traced, "mlp.hidden")] == [96, 96]
    for i, group in enumerate(g for g in by_role(traced, "attention.head_dim") if g.size == 12):
        tensors = {m.tensor for m in group.members}
        if f"blocks.{i}.attn.rel_pos_h" in tensors:
            assert f"blocks.{i}.attn.rel_pos_w" in tensors
    assert any("rel_pos_h" in m.tensor for g in by_role(traced, "attention.head_dim") for m in g.members)
    assert traced.unknown == {}


def test_heads_do_not_constrain_the_embedding(traced):
    """Each embedding channel is a unit of its own: one coordinate of the residual stream."""
    (embedding,) = by_role(traced, "embedding")
    qkv = next(m for m in embedding.members if m.tensor == "blocks.0.attn.qkv.weight")
    assert qkv.axis == 1
    assert qkv.unit_of.tolist() == list(range(48))


def test_twelve_strong_channels_in_one_chunk_survive():
    model, x = encoder()
    structure = prunekit.trace(model, x)
    (embedding,) = by_role(structure, "embedding")
    state = dict(model.named_parameters())
    with torch.no_grad():
        for member in embedding.parameters:
            index = torch.nonzero((member.unit_of >= 12) & (member.unit_of < 24)).flatten()
            state[member.tensor].index_copy_(
                member.axis, index, 10 * state[member.tensor].index_select(member.axis, index)
            )
    plan = prunekit.plan(model, x, ratio=0.75, roles="embedding", structure=structure)
    assert plan.widths[0].kept == tuple(range(12, 24))


def test_pruned_equals_masked_with_relative_positions_in_place():
    model, x = encoder()
    structure = prunekit.trace(model, x)
    names = [g.name for g in structure.groups if g.role in ("attention.head_dim", "mlp.hidden")]
    made = draft(model, x, structure=structure, include=names, scorer=prunekit.Random(seed=1), verify="shapes")
    scale = model.blocks[0].attn.scale
    expected = run(masked(model, structure.groups, made.kept), x)
    prunekit.apply(model, made.plan)
    assert distance(expected, run(model, x)) < 1e-12
    for block in model.blocks:
        assert block.attn.scale == scale
        assert block.attn.rel_pos_h.shape[1] == block.attn.qkv.weight.shape[0] // 3 // 4
        assert block.attn.rel_pos_h.abs().min() > 0
        assert block.attn.rel_pos_h.shape[1] == 6
        assert block.mlp.lin1.out_features == 48


def test_whole_heads_can_go_instead():
    model, x = encoder()
    structure = prunekit.trace(model, x)
    names = [g.name for g in by_role(structure, "attention.heads")]
    made = draft(model, x, structure=structure, include=names, scorer=prunekit.Random(seed=1), verify="shapes")
    expected = run(masked(model, structure.groups, made.kept), x)
    prunekit.apply(model, made.plan)
    assert distance(expected, run(model, x)) < 1e-12
    assert [b.attn.num_heads for b in model.blocks] == [2, 2]
    assert model.blocks[0].attn.qkv.weight.shape == (72, 48)


def test_permuting_heads_leaves_the_decision_within_a_head_unchanged():
    model, x = encoder()
    order = torch.tensor([2, 0, 3, 1])
    before = prunekit.plan(model, x, roles="attention.head_dim", verify="shapes")
    with torch.no_grad():
        for block in model.blocks:
            qkv, proj = block.attn.qkv, block.attn.proj
            qkv.weight.copy_(qkv.weight.view(3, 4, 12, 48)[:, order].reshape(144, 48))
            qkv.bias.copy_(qkv.bias.view(3, 4, 12)[:, order].reshape(144))
            proj.weight.copy_(proj.weight.view(48, 4, 12)[:, order].reshape(48, 48))
    after = prunekit.plan(model, x, roles="attention.head_dim", verify="shapes")
    assert before.widths
    assert after.widths == before.widths


def test_symmetry_holds_for_all_groups_and_costs_are_measured():
    model, x = encoder(depth=3)
    structure = prunekit.trace(model, x)
    assert symmetry(model, structure.groups, structure.inputs).passed
    made = draft(model, x, structure=structure, verify="shapes")
    for cost in (structure.cost(), structure.cost(made.kept)):
        assert (cost.params, cost.macs) == measured(model, (x,))
        assert cost.layer_macs == layer_macs(model, (x,))
        if cost.params == structure.cost().params:
            prunekit.apply(model, made.plan)
    assert run(model, x)[0].shape == (1, 16, 8, 8)


def test_undo_is_bit_identical():
    model, x = encoder()
    before = snapshot(model)
    result = prunekit.prune(model, x)
    assert differences(before, snapshot(model))
    result.undo()
    assert differences(before, snapshot(model)) == []
