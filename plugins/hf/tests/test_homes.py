"""A pruned transformers model says its widths in its own config: from_pretrained gives it back, values and all."""

import copy

import pytest
import torch
import transformers as hf
from support.sweeps import but_for_sweeps
from torch import nn

import prunekit
from prunekit.errors import ConfigError, InputError

SMALL = {
    "vocab_size": 120,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
IDS = {"input_ids": torch.randint(3, 100, (1, 12), generator=torch.Generator().manual_seed(0))}
PIXELS = {"pixel_values": torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))}
VIT = {key: value for key, value in SMALL.items() if key != "vocab_size"} | {"image_size": 64, "patch_size": 16}
SPEECH = {"conv_dim": [32, 32], "conv_stride": [5, 2], "conv_kernel": [10, 3], "num_conv_pos_embeddings": 16}
SPEECH |= {"num_conv_pos_embedding_groups": 4}
WAVE = {"input_values": torch.randn(1, 2000, generator=torch.Generator().manual_seed(0))}


def made(kind, config, **settings):
    torch.manual_seed(0)
    return getattr(hf, kind)(getattr(hf, config)(**settings)).eval()


MODELS = {
    "bert": (lambda: made("BertForSequenceClassification", "BertConfig", **SMALL), IDS, "hidden_size"),
    "gpt2": (
        lambda: made("GPT2LMHeadModel", "GPT2Config", vocab_size=120, n_embd=64, n_layer=2, n_head=4),
        IDS,
        "n_inner",
    ),
    "llama": (
        lambda: made("LlamaForCausalLM", "LlamaConfig", **SMALL, num_key_value_heads=2),
        IDS,
        "num_key_value_heads",
    ),
    "qwen2": (lambda: made("Qwen2ForCausalLM", "Qwen2Config", **SMALL, num_key_value_heads=2), IDS, "hidden_size"),
    "t5": (
        lambda: made(
            "T5ForConditionalGeneration", "T5Config", vocab_size=120, d_model=64, d_kv=16, d_ff=128, num_layers=2
        ),
        {**IDS, "decoder_input_ids": IDS["input_ids"][:, :6]},
        "d_ff",
    ),
    "vit": (lambda: made("ViTForImageClassification", "ViTConfig", **VIT), PIXELS, "hidden_size"),
    "dinov2, a token that forward never reads": (
        lambda: made("Dinov2ForImageClassification", "Dinov2Config", **VIT),
        PIXELS,
        "hidden_size",
    ),
    "wav2vec2, a token for training": (
        lambda: made("Wav2Vec2ForCTC", "Wav2Vec2Config", **SMALL, **SPEECH),
        WAVE,
        "hidden_size",
    ),
    "resnet, widths in a list": (
        lambda: made(
            "ResNetForImageClassification", "ResNetConfig", embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1]
        ),
        PIXELS,
        "hidden_sizes.1",
    ),
    "clip, a config in a config": (
        lambda: made("CLIPModel", "CLIPConfig", text_config={**SMALL, "eos_token_id": 99}, vision_config=VIT),
        {**IDS, **PIXELS},
        "text_config.intermediate_size",
    ),
}


def outputs(model, inputs):
    with torch.no_grad():
        found = model(**inputs)
    return found[0] if not hasattr(found, "logits_per_image") else found.logits_per_image


@pytest.mark.parametrize("name", but_for_sweeps(MODELS, {"t5", "qwen2", "wav2vec2, a token for training"}))
def test_from_pretrained_gives_it_back(name, tmp_path):
    make, inputs, entry = MODELS[name]
    model = make()
    before = sum(p.numel() for p in model.parameters())
    result = prunekit.prune(model, inputs, ratio=0.5, uniform=True)
    assert entry in [edit[0] for edit in result.home.edits] or name == "gpt2"
    assert sum(p.numel() for p in model.parameters()) < 0.9 * before
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(outputs(again, inputs), outputs(model, inputs), rtol=1e-5, atol=1e-5)
    again.train()(**inputs)


def test_a_ratio_of_widths_is_an_entry_too(tmp_path):
    sizes = {"image_size": 64, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4}
    model = made("SwinModel", "SwinConfig", **sizes)
    result = prunekit.prune(model, PIXELS, ratio=0.5, roles=["mlp.hidden"], scorer="magnitude", uniform=True)
    assert result.home.edits == (("mlp_ratio", 4.0, 2.0),)
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(outputs(hf.SwinModel.from_pretrained(tmp_path).eval(), PIXELS), outputs(model, PIXELS))


def test_what_is_written_is_told_and_taken_back():
    model = MODELS["bert"][0]()
    before = model.config.to_dict()
    result = prunekit.prune(model, IDS, ratio=0.5)
    assert model.config.hidden_size == 32
    assert "config  hidden_size 64 -> 32" in repr(result)
    result.undo()
    assert model.config.to_dict() == before
    model(**IDS)


def test_a_copy_of_the_config_in_a_part_is_true_too():
    model = MODELS["t5"][0]()
    prunekit.prune(model, MODELS["t5"][1], ratio=0.5, uniform=True)
    assert model.encoder.config.d_ff == model.decoder.config.d_ff == model.config.d_ff == 64


def test_shapes_that_agree_are_not_enough(caplog):
    """Half of the rotary frequencies are gone; the class would compute others for the same shapes."""
    model = made("LlamaForCausalLM", "LlamaConfig", **SMALL, head_dim=16)
    before = model.config.to_dict()
    result = prunekit.prune(model, IDS, ratio=0.5, roles=["attention.head_dim"], include=["*q_proj*", "*v_proj*"])
    assert result.home.edits == ()
    assert "inv_freq" in result.home.trouble
    assert model.config.to_dict() == before
    assert "pass uniform=True" in caplog.text


def test_what_uniform_widths_try_and_leave_is_no_warning(caplog):
    """The scale of the embeddings is computed from their width, so that width stays."""
    model = made("Gemma3ForCausalLM", "Gemma3TextConfig", **SMALL, num_key_value_heads=2, head_dim=16)
    result = prunekit.prune(model, IDS, ratio=0.5, uniform=True, scorer="random")
    assert result.home.edits
    assert "from_pretrained" not in caplog.text


def test_a_scale_that_the_class_computes_is_folded_into_the_weights():
    model = MODELS["bert"][0]()
    dense = copy.deepcopy(model)
    prunekit.prune(model, IDS, ratio=0.5, roles=["embedding", "attention.head_dim", "mlp.hidden"])
    scaling = model.bert.encoder.layer[0].attention.self.scaling
    assert scaling == pytest.approx(8**-0.5)
    assert dense.bert.encoder.layer[0].attention.self.scaling == pytest.approx(16**-0.5)


def test_generate_and_the_cache_run():
    model = MODELS["qwen2"][0]()
    prunekit.prune(model, IDS, ratio=0.5, uniform=True)
    with_cache = model.generate(**IDS, max_new_tokens=6, do_sample=False)
    without = model.generate(**IDS, max_new_tokens=6, do_sample=False, use_cache=False)
    assert torch.equal(with_cache, without)


def test_a_ratio_that_roundings_would_break_is_taken_in_steps_that_roles_share(tmp_path):
    model = MODELS["bert"][0]()
    prunekit.prune(model, IDS, ratio=0.3, uniform=True)
    assert model.config.hidden_size == 48
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(outputs(type(model).from_pretrained(tmp_path).eval(), IDS), outputs(model, IDS))


def test_a_target_is_met_in_widths_that_can_be_said(tmp_path):
    model = MODELS["qwen2"][0]()
    before = sum(p.numel() for p in model.parameters())
    prunekit.prune(model, IDS, target="params<=70%", uniform=True)
    assert 0.4 * before < sum(p.numel() for p in model.parameters()) <= 0.7 * before
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(outputs(type(model).from_pretrained(tmp_path).eval(), IDS), outputs(model, IDS))


def test_widths_that_no_config_can_say_are_refused_by_name():
    model = MODELS["bert"][0]()
    before = copy.deepcopy(model.state_dict())
    config = model.config.to_dict()
    with pytest.raises(ConfigError, match=r"(?s)query\.weight.*prunekit\.load"):
        prunekit.prune(model, IDS, ratio=0.5, roles=["attention.head_dim"], uniform=True)
    assert model.config.to_dict() == config
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_uniform_needs_somebody_who_knows_the_library_and_a_local_ranking():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(InputError, match="nobody knows a configuration of Sequential"):
        prunekit.prune(model, torch.randn(1, 4), ratio=0.5, uniform=True)
    with pytest.raises(InputError, match="a width of its own"):
        prunekit.prune(model, torch.randn(1, 4), ratio=0.5, uniform=True, ranking="global")
    with pytest.raises(InputError):
        prunekit.prune(model, torch.randn(1, 4), ratio=0.5, uniform="yes")


def test_layers_of_different_widths_are_not_hidden():
    model = MODELS["bert"][0]()
    result = prunekit.prune(model, IDS, ratio={"bert.encoder.layer.0.intermediate.dense": 0.5})
    assert result.home.edits == ()
    assert "bert.encoder.layer.0.intermediate.dense" in result.home.trouble
