"""A folder of prunekit's own keeps what builds a model of transformers: one line loads it, without the original."""

import json

import pytest
import torch
import transformers as hf

import prunekit
from prunekit.cli.app import run
from prunekit.errors import CheckpointError
from prunekit.exports import export

SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
MODELS = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=120, num_key_value_heads=2, **SMALL)),
    "bert": lambda: hf.BertForSequenceClassification(hf.BertConfig(vocab_size=120, num_labels=5, **SMALL)),
    "t5": lambda: hf.T5ForConditionalGeneration(
        hf.T5Config(vocab_size=120, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4, decoder_start_token_id=0)
    ),
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(image_size=32, patch_size=8, num_labels=7, **SMALL)),
    "clip": lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(image_size=32, patch_size=8, **SMALL)),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=120, n_embd=64, n_layer=2, n_head=4, n_positions=32)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(vocab_size=120, num_key_value_heads=2, **SMALL)),
    "wav2vec2": lambda: hf.Wav2Vec2Model(
        hf.Wav2Vec2Config(
            conv_dim=[32] * 2, conv_stride=[5, 2], conv_kernel=[10, 3], num_feat_extract_layers=2, **SMALL
        )
    ),
}


def inputs(name):
    torch.manual_seed(1)
    if name in ("vit", "clip"):
        return {"pixel_values": torch.randn(1, 3, 32, 32)}
    if name == "wav2vec2":
        return {"input_values": torch.randn(1, 800)}
    ids = {"input_ids": torch.randint(3, 120, (1, 12))}
    return ids | ({"decoder_input_ids": torch.randint(3, 120, (1, 5))} if name == "t5" else {})


def first(model, x):
    with torch.no_grad():
        return next(v for v in model(**x).values() if isinstance(v, torch.Tensor))


@pytest.mark.parametrize(
    ("name", "uniform"), [*((name, False) for name in MODELS), *((name, True) for name in ("llama", "t5", "vit"))]
)
def test_one_line_loads_it_without_the_original(name, uniform, tmp_path):
    torch.manual_seed(0)
    model, x = MODELS[name]().eval(), inputs(name)
    result = prunekit.prune(
        model, x, ratio=0.3, ranking="local" if uniform else "global", uniform=uniform, scorer="magnitude"
    )
    prunekit.save(result, tmp_path / "slim")
    again = prunekit.load(tmp_path / "slim")
    assert type(again) is type(model)
    assert torch.equal(first(again, x), first(model, x))
    assert again.config.to_dict() == model.config.to_dict()
    said = json.loads((tmp_path / "slim" / "model.json").read_text())["home"]["says_widths"]
    assert said or not uniform
    # and once more from there: two cuts are one folder again
    twice = prunekit.prune(again, x, ratio=0.2, scorer="magnitude")
    prunekit.save(twice, tmp_path / "slimmer")
    assert torch.equal(first(prunekit.load(tmp_path / "slimmer"), x), first(again, x))


def test_it_knows_where_it_came_from_and_the_cli_goes_on_from_there(tmp_path, capsys):
    torch.manual_seed(0)
    made = MODELS["llama"]()
    made.generation_config.temperature = 0.25
    made.generation_config.do_sample = True
    made.save_pretrained(tmp_path / "origin")
    model = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "origin")
    result = prunekit.prune(model, inputs("llama"), ratio=0.5, uniform=True, scorer="magnitude")
    prunekit.save(result, tmp_path / "slim")
    assert prunekit.load(tmp_path / "slim").generation_config.temperature == 0.25
    assert run(["export", str(tmp_path / "slim"), "--to", "hf", "--out", str(tmp_path / "home"), "--json"]) == 0
    again = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "home")
    assert torch.equal(first(again, inputs("llama")), first(model, inputs("llama")))
    assert again.generation_config.temperature == 0.25
    capsys.readouterr()


def test_a_model_from_nowhere_is_exported_too(tmp_path):
    torch.manual_seed(0)
    model = MODELS["bert"]()
    prunekit.save(prunekit.prune(model, inputs("bert"), ratio=0.5, uniform=True, scorer="magnitude"), tmp_path / "slim")
    done = export(tmp_path / "slim", "hf", tmp_path / "home")
    assert "config.json" in done.files


def test_a_class_of_ones_own_asks_for_an_instance(tmp_path):
    class Own(hf.BertModel):
        pass

    def fresh():
        torch.manual_seed(0)
        return Own(hf.BertConfig(vocab_size=120, **SMALL)).eval()

    model = fresh()
    result = prunekit.prune(model, inputs("bert"), ratio=0.3, scorer="magnitude")
    prunekit.save(result, tmp_path / "slim")
    with pytest.raises(CheckpointError, match="does not say how to build"):
        prunekit.load(tmp_path / "slim")
    assert torch.equal(first(prunekit.load(tmp_path / "slim", fresh()), inputs("bert")), first(model, inputs("bert")))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"class": "NoSuchModel"}, "does not build"),
        ({"class": "pipeline"}, "does not build"),
        ({"config": {"hidden_size": "wide"}}, "does not build"),
        ({"dtype": "load"}, "does not build"),
    ],
)
def test_a_damaged_description_is_refused(change, words, tmp_path):
    torch.manual_seed(0)
    prunekit.save(prunekit.prune(MODELS["bert"](), inputs("bert"), ratio=0.3, scorer="magnitude"), tmp_path / "slim")
    file = tmp_path / "slim" / "model.json"
    told = json.loads(file.read_text())
    told["home"]["values"].update(change)
    file.write_text(json.dumps(told))
    (tmp_path / "slim" / "checksums.json").unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=words):
        prunekit.load(tmp_path / "slim")


def test_the_way_that_attention_is_computed_is_kept(tmp_path):
    torch.manual_seed(0)
    config = hf.BertConfig(vocab_size=120, attn_implementation="eager", **SMALL)
    model = hf.BertModel(config).eval()
    prunekit.save(prunekit.prune(model, inputs("bert"), ratio=0.3, scorer="magnitude"), tmp_path / "slim")
    assert prunekit.load(tmp_path / "slim").config._attn_implementation == "eager"


def test_a_class_with_parts_that_know_no_other_attention(tmp_path):
    torch.manual_seed(0)
    model = hf.LightGlueForKeypointMatching(
        hf.LightGlueConfig(descriptor_dim=64, num_hidden_layers=2, num_attention_heads=4)
    ).eval()
    x = {"pixel_values": torch.rand(1, 2, 3, 64, 64)}
    prunekit.save(prunekit.prune(model, x, ratio=0.3, scorer="magnitude"), tmp_path / "slim")
    assert type(prunekit.load(tmp_path / "slim")) is type(model)
