"""Models that people use, small: pruned with nothing configured, exact where a reference exists."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
import transformers
from segment_anything.modeling import ImageEncoderViT
from support.compare import differences, distance, gradients, masked, measured, run, snapshot
from support.drafts import choose, draft
from support.sweeps import but_for_sweeps

import prunekit
from prunekit.errors import PlanError
from prunekit.planning.symmetry_check import symmetry

IMAGE = (2, 3, 32, 32)


def vit(**how):
    how = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 5, **how}
    return timm.models.vision_transformer.VisionTransformer(**how)


def llama(**how):
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, **how,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def gpt2():
    config = transformers.GPT2Config(vocab_size=40, n_positions=16, n_embd=32, n_layer=2, n_head=4)
    return transformers.GPT2LMHeadModel(config)


IMAGES = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=5),
    "resnet50": lambda: torchvision.models.resnet50(num_classes=5),
    "densenet121": lambda: torchvision.models.densenet121(num_classes=5),
    "shufflenet": lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=5),
    "mobilenet_v3": lambda: torchvision.models.mobilenet_v3_small(num_classes=5),
    "timm vit": lambda: vit(),
    "convnext": lambda: timm.create_model("convnext_atto", num_classes=5),
}


def numbers(batch=2):
    return torch.arange(12 * batch).reshape(batch, 12) % 40


@pytest.mark.parametrize("name", but_for_sweeps([n for n in IMAGES if n != "densenet121"], {"resnet50"}))
def test_image_models_shrink_and_train(name):
    torch.manual_seed(0)
    model, x = IMAGES[name](), torch.randn(IMAGE)
    model.train()
    before = measured(model.eval(), (x,))
    model.train()
    result = prunekit.prune(model, x)
    assert result.report.verify["symmetry"] == "passed", result.report.verify
    assert model.training
    assert all(m.training for m in model.modules())
    after = measured(model.eval(), (x,))
    assert (result.report.params["after"], result.report.macs["after"]) == after
    assert (result.report.params["before"], result.report.macs["before"]) == before
    assert after[0] < 0.8 * before[0]
    assert run(model, x)[0].shape == (2, 5)
    assert gradients(model.train(), (torch.randn(3, 3, 32, 32),))


@pytest.mark.parametrize("name", but_for_sweeps(["resnet50", "densenet121"], {"densenet121"}))
def test_convolutional_models_equal_their_masked_selves(name):
    torch.manual_seed(0)
    model, x = IMAGES[name]().double().eval(), torch.randn(1, 3, 32, 32).double()
    structure = prunekit.trace(model, x)
    plain = [g for g in choose(structure) if not g.normalised]
    made = draft(model, x, structure=structure, include=[g.name for g in plain], verify="shapes", ratio=0.3)
    expected = run(masked(model, plain, made.kept), x)
    prunekit.apply(model, made.plan)
    assert distance(expected, run(model, x)) < 1e-9


@pytest.mark.parametrize("fused", [True, False])
def test_timm_vit_keeps_its_function_within_heads(fused):
    torch.manual_seed(0)
    model, x = vit().double().eval(), torch.randn(1, 3, 32, 32).double()
    for block in model.blocks:
        block.attn.fused_attn = fused
    structure = prunekit.trace(model, x)
    names = [g.name for g in structure.groups if g.role in ("attention.head_dim", "mlp.hidden")]
    made = draft(model, x, structure=structure, include=names, verify="shapes")
    assert made.notes == ()
    assert {w.role for w in made.plan.widths} == {"attention.head_dim", "mlp.hidden"}
    assert bool(made.plan.folds) is fused
    expected = run(masked(model, structure.groups, made.kept), x)
    prunekit.apply(model, made.plan)
    assert distance(expected, run(model, x)) < 1e-9
    assert model.blocks[0].attn.head_dim == 8


def test_llama_keeps_key_value_groups_with_their_queries_and_rotary_pairs():
    torch.manual_seed(0)
    # the cache is an output too, and outputs keep their shapes
    model, x = llama().double().eval(), {"input_ids": numbers(), "use_cache": False}
    structure = prunekit.trace(model, x)
    heads = [g for g in structure.groups if g.role == "attention.heads"]
    assert [g.size for g in heads] == [2, 2]
    rows = {m.tensor.rsplit(".", 2)[1]: m for m in heads[0].members}
    assert rows["q_proj"].unit_of.bincount().tolist() == [16, 16]
    assert rows["k_proj"].unit_of.bincount().tolist() == [8, 8]
    assert rows["o_proj"].axis == 1
    rotary = [g for g in structure.groups if any("q_proj" in m.tensor for m in g.members) and g.role.endswith("_dim")]
    for group in rotary:
        q = next(m for m in group.members if "q_proj" in m.tensor)
        first_head = q.unit_of[:8].tolist()
        assert first_head[:4] == first_head[4:]
    assert symmetry(model, structure.groups, structure.inputs).passed
    made = draft(model, x, structure=structure, include=[g.name for g in heads], verify="shapes")
    expected = run(masked(model, heads, made.kept), x)
    prunekit.apply(model, made.plan)
    assert distance(expected, run(model, x)) < 1e-9


@pytest.mark.parametrize("build", [llama, gpt2])
def test_language_models_shrink_with_dict_inputs_and_structured_outputs(build):
    torch.manual_seed(0)
    model, x = build(), {"input_ids": numbers()}
    result = prunekit.prune(model, x)
    assert result.report.verify["symmetry"] == "passed"
    assert result.report.params["after"] < 0.8 * result.report.params["before"]
    out = model(input_ids=numbers(3))
    assert isinstance(out, transformers.modeling_outputs.ModelOutput)
    assert out.logits.shape == (3, 12, 40)
    assert gradients(model.train(), x)


def test_tied_embeddings_stay_tied():
    torch.manual_seed(0)
    model, x = gpt2(), {"input_ids": numbers()}
    assert model.lm_head.weight is model.transformer.wte.weight
    before = snapshot(model)
    result = prunekit.prune(model, x)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert model.lm_head.weight.shape == (40, 16)
    result.undo()
    assert differences(before, snapshot(model)) == []


def small_resnet():
    return timm.create_model("test_resnet", num_classes=10)  # convolutions of half precision are slow on a processor


@pytest.mark.parametrize(
    ("build", "dtype"),
    [(vit, torch.float16), (vit, torch.bfloat16), (small_resnet, torch.float16)],
)
def test_half_precision_stays_half(dtype, build):
    torch.manual_seed(0)
    model, x = build().to(dtype).eval(), torch.randn(1, 3, 32, 32, dtype=dtype)
    result = prunekit.prune(model, x)
    assert result.report.verify["symmetry"] == "passed", result.report.verify
    assert {p.dtype for p in model.parameters()} == {dtype}
    out = run(model, x)[0]
    assert out.dtype is dtype
    assert bool(torch.isfinite(out).all())


def test_a_meta_model_can_be_planned_but_not_cut():
    torch.manual_seed(0)
    real = vit()
    with torch.device("meta"):
        model = vit()
    x = torch.randn(1, 3, 32, 32)
    before = snapshot(model)
    plan = prunekit.plan(model, x.to("meta"), scorer=prunekit.Random(seed=0))
    with pytest.raises(PlanError, match="meta device"):
        prunekit.prune(model, x.to("meta"), scorer=prunekit.Random(seed=0))
    assert differences(before, snapshot(model)) == []
    prunekit.apply(real, plan)
    assert run(real, x)[0].shape == (1, 5)


def tiny_encoder():
    return ImageEncoderViT(
        img_size=64, patch_size=8, embed_dim=48, depth=2, num_heads=4, mlp_ratio=2, out_chans=16, use_rel_pos=True,
        window_size=3, global_attn_indexes=(1,),
    )  # fmt: skip


@pytest.mark.parametrize(
    "build",
    [
        lambda: timm.create_model("vit_tiny_patch16_224", depth=2, embed_dim=48, num_heads=3, num_classes=5),
        lambda: timm.create_model("resnet10t", num_classes=5),
        tiny_encoder,
    ],
    ids=["vit", "resnet", "sam"],
)
def test_one_call_with_a_scorer_and_nothing_else(build, caplog):
    torch.manual_seed(0)
    model = build()
    result = prunekit.prune(model, scorer=prunekit.DisturbedTaylor())
    assert result.model is model
    assert result.report.params["after"] < 0.8 * result.report.params["before"]
    assert result.report.verify["symmetry"] == "passed"
    assert "no data given" in caplog.text
