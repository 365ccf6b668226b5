"""Experts of transformers' classes: removed exactly, written into the config, saved and loaded by transformers."""

import pytest
import torch
import torch.nn.functional as F
import transformers as hf

import prunekit

SMALL = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LATENT = {
    "moe_intermediate_size": 24,
    "n_shared_experts": 1,
    "first_k_dense_replace": 0,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 8,
}
JAMBA = {"expert_layer_period": 1, "expert_layer_offset": 0, "attn_layer_period": 1, "attn_layer_offset": 0}
CLASSES = {
    "Mixtral": {"num_local_experts": 8},
    "Qwen2Moe": {"num_experts": 8, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 24},
    "Qwen3Moe": {"num_experts": 8, "moe_intermediate_size": 24, "head_dim": 8},
    "Olmoe": {"num_experts": 8},
    "GptOss": {"num_local_experts": 8, "head_dim": 8, "max_position_embeddings": 131072},
    "GraniteMoe": {"num_local_experts": 8},
    "Phimoe": {"num_local_experts": 8},
    "Jamba": {"num_experts": 8, "use_mamba_kernels": False, **JAMBA},
    "DeepseekV2": {**LATENT, "n_group": 1, "topk_group": 1},
    "DeepseekV3": {**LATENT, "n_group": 2, "topk_group": 1},
}


def made(name, implementation="grouped_mm"):
    torch.manual_seed(0)
    config = getattr(hf, f"{name}Config")(**(SMALL | {"num_experts_per_tok": 2} | CLASSES[name]))
    config._experts_implementation = implementation
    model = getattr(hf, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for key, tensor in model.state_dict().items():  # some start at zero, or as whatever was in memory
            if tensor.is_floating_point() and ("mlp" in key or "moe" in key or "feed_forward" in key):
                tensor.normal_(0, 0.3)
    return model


def inputs():
    return {"input_ids": torch.randint(3, 32, (2, 9), generator=torch.Generator().manual_seed(1)), "use_cache": False}


def never_choosing(model, routers, gone, monkeypatch):
    """The output of the whole model whose routers give the experts that are gone the least of all scores."""
    plain = F.linear

    def linear(x, weight, bias=None):
        scores = plain(x, weight, bias)
        return scores.index_fill(-1, gone, -1e9) if any(weight is router for router in routers) else scores

    with monkeypatch.context() as patched:
        patched.setattr(F, "linear", linear)
        return model(**inputs()).logits


@pytest.mark.parametrize("name", CLASSES)
def test_what_is_left_is_the_whole_model_that_never_chooses_what_went(name, monkeypatch, tmp_path):
    model, whole = made(name), made(name)
    structure = prunekit.trace(model, inputs())
    (group,) = [g for g in structure.groups if g.role == "experts"]
    result = prunekit.prune(model, inputs(), roles=["experts"], ratio=0.25, structure=structure, scorer="random")
    (width,) = result.plan.widths
    member = group.members[[m.tensor for m in group.members].index(group.name.split(":")[0])]
    lost = sorted(set(range(group.size)) - set(width.kept))
    gone = torch.cat([member.coordinates(unit) for unit in lost])
    state = dict(whole.named_parameters())
    with torch.no_grad():
        before = whole(**inputs()).logits
        for other in group.members:
            if other.is_buffer:  # a correction of scores that a sigmoid keeps from falling far enough
                whole.get_buffer(other.tensor)[gone] = -1e9
        expected = never_choosing(whole, [state[member.tensor]], gone, monkeypatch)
        assert float((before - expected).abs().max()) > 1e-3
        torch.testing.assert_close(model(**inputs()).logits, expected, rtol=1e-5, atol=1e-5)
    assert len(gone) == 2
    assert [(was, now) for _, was, now in result.home.edits] == [(8, 6)]
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(**inputs()).logits, model(**inputs()).logits)
    labels = {
        **inputs(),
        "labels": inputs()["input_ids"],
        "output_router_logits": name not in ("DeepseekV2", "DeepseekV3"),
    }
    assert bool(torch.isfinite(model(**labels).loss))


@pytest.mark.parametrize("implementation", ["eager", "batched_mm"])
def test_however_transformers_runs_them(implementation, monkeypatch):
    model, whole = made("Mixtral", implementation), made("Mixtral")
    ratio = {"experts": 0.25, "mlp.hidden": 1 / 3}
    result = prunekit.prune(model, inputs(), ratio=ratio, scorer="random")
    assert {w.role: (w.before, w.after) for w in result.plan.widths} == {"experts": (8, 6), "mlp.hidden": (24, 16)}
    prunekit.apply(whole, result.plan)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs()).logits, whole(**inputs()).logits, rtol=1e-5, atol=1e-5)


def test_the_count_that_only_the_loss_reads_is_repaired():
    model = made("Mixtral")
    prunekit.prune(model, inputs(), roles=["experts"], ratio=0.25, scorer="random")
    assert (model.num_experts, model.config.num_local_experts) == (6, 6)


def switch():
    """Experts that are entries of a ModuleDict, one of them chosen by argmax; each may take so many tokens."""
    torch.manual_seed(0)
    widths = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "vocab_size": 32, "num_experts": 6}
    layers = dict.fromkeys(("num_layers", "num_decoder_layers"), 2)
    layers |= dict.fromkeys(("num_sparse_encoder_layers", "num_sparse_decoder_layers"), 1)
    config = hf.SwitchTransformersConfig(**widths, **layers, router_bias=True, expert_capacity=4)
    model = hf.SwitchTransformersForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model


@pytest.mark.parametrize("scorer", ["reap", "routed_frequency", "random"])
def test_experts_by_name_of_which_one_is_chosen_go_from_a_list(scorer):
    model, whole = switch(), switch()
    texts = [
        {"input_ids": ids, "decoder_input_ids": ids, "use_cache": False} for ids in torch.arange(3, 27).view(2, 2, 6)
    ]
    result = prunekit.prune(model, texts[0], roles=["depth.expert"], ratio=0.34, scorer=scorer, data=texts)
    assert sum(len(removal.gone) for removal in result.plan.removals) == 4
    with torch.no_grad():
        before = whole(**texts[1]).logits
        for width in result.plan.widths:
            gone = sorted(set(range(6)) - set(width.kept))
            mixture = whole.get_submodule(width.group.rpartition(".")[0])
            mixture.router.classifier.bias[gone] = -1e9
            now = model.get_submodule(width.group.rpartition(".")[0])
            assert list(now.experts) == [f"expert_{number}" for number in range(width.after)]
        expected = whole(**texts[1]).logits
        assert scorer != "random" or float((before - expected).abs().max()) > 1e-3
        torch.testing.assert_close(model(**texts[1]).logits, expected, rtol=1e-5, atol=1e-5)
    result.undo()
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), switch().state_dict().values(), strict=True)
    )
