"""``hf:FOLDER`` names a model by where it lies, and ``--to hf`` gives a folder back that the library loads."""

import shutil

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from typer.testing import CliRunner

import prunekit
from prunekit.cli.app import app
from prunekit.errors import CheckpointError, ConfigError, RegistryError, ScorerError
from prunekit.exports import export
from prunekit.registry import build

SMALL = {
    "vocab_size": 120,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    hf.BertForMaskedLM(hf.BertConfig(**SMALL)).save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "tokenizer_config.json").write_text('{"model_max_length": 12}')
    return tmp_path / "bert"


def test_the_config_says_the_class(folder):
    assert type(build(f"hf:{folder}").model) is hf.BertForMaskedLM


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ("task=text-classification&num_labels=3", "BertForSequenceClassification"),
        ("task=fill-mask", "BertForMaskedLM"),
        ("class=BertModel", "BertModel"),
        ("class=AutoModel&dtype=bfloat16", "BertModel"),
    ],
)
def test_task_class_and_dtype(folder, arguments, kind):
    model = build(f"hf:{folder}?{arguments}").model
    assert type(model).__name__ == kind
    assert model.dtype is (torch.bfloat16 if "bfloat16" in arguments else torch.float32)
    if "num_labels" in arguments:
        assert model.config.num_labels == 3


@pytest.mark.parametrize(
    ("spec", "error", "text"),
    [
        ("{}?task=text-clasification", RegistryError, "text-classification"),
        ("{}?class=BertForMaskdLM", RegistryError, "BertForMaskedLM"),
        ("{}?class=BertModel&task=fill-mask", RegistryError, "both say"),
        ("{}?dtype=float31", RegistryError, "float32"),
        ("{}/nothing", RegistryError, "is no folder here, and no hub gives it"),
        ("nobody/this-model-is-not-there", RegistryError, "network"),
    ],
)
def test_what_cannot_be_built_says_the_next_step(folder, spec, error, text, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read from the environment once, long ago
    with pytest.raises(error, match=text):
        build(f"hf:{spec.format(folder)}")


def test_a_folder_without_a_model_and_one_that_is_broken(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        build(f"hf:{tmp_path / 'empty'}")
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / "empty" / name).touch()
    with pytest.raises(CheckpointError, match="2 GGUF files"):
        build(f"hf:{tmp_path / 'empty'}")
    (folder / "model.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(CheckpointError, match="does not load"):
        build(f"hf:{folder}")


def test_pruned_saved_loaded_and_exported(folder, tmp_path):
    model, x = build(f"hf:{folder}").model, {"input_ids": torch.randint(3, 100, (1, 12))}
    result = prunekit.prune(model, x, ratio=0.5, uniform=True)
    prunekit.save(result, tmp_path / "slim", spec=f"hf:{folder}")
    done = export(tmp_path / "slim", "hf", tmp_path / "slim-hf")
    assert "tokenizer_config.json" in done.files
    assert "config.json" in done.files
    again = hf.AutoModelForMaskedLM.from_pretrained(tmp_path / "slim-hf")
    assert again.config.hidden_size == 32
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(**x).logits, model(**x).logits)
    shutil.rmtree(folder)
    with torch.no_grad():  # the folder keeps what builds the class, and needs the original's no more
        torch.testing.assert_close(prunekit.load(tmp_path / "slim")(**x).logits, model(**x).logits)


def test_widths_that_the_config_cannot_say_are_not_exported(folder, tmp_path):
    model, x = build(f"hf:{folder}").model, {"input_ids": torch.randint(3, 100, (1, 12))}
    result = prunekit.prune(model, x, ratio={"bert.encoder.layer.0.intermediate.dense": 0.5})
    prunekit.save(result, tmp_path / "slim", spec=f"hf:{folder}")
    with pytest.raises(prunekit.errors.ExportError, match=r"(?s)intermediate\.dense.*uniform=True"):
        export(tmp_path / "slim", "hf", tmp_path / "slim-hf")
    assert not (tmp_path / "slim-hf").exists()


def test_the_command_line_prunes_a_folder_and_brings_it_home(folder, tmp_path):
    out = tmp_path / "out"
    run = CliRunner().invoke(app, ["prune", f"hf:{folder}", "--ratio", "0.5", "--uniform", "--out", str(out)])
    assert run.exit_code == 0, run.output
    run = CliRunner().invoke(app, ["export", str(out), "--to", "hf", "--out", str(tmp_path / "home")])
    assert run.exit_code == 0, run.output
    assert hf.AutoModelForMaskedLM.from_pretrained(tmp_path / "home").config.intermediate_size == 64


def test_onnx_of_a_pruned_model_gives_what_it_gives(folder, tmp_path):
    model, x = build(f"hf:{folder}").model, {"input_ids": torch.randint(3, 100, (1, 12))}
    result = prunekit.prune(model, x, ratio=0.5)
    prunekit.save(result, tmp_path / "slim", spec=f"hf:{folder}")
    done = export(tmp_path / "slim", "onnx", tmp_path / "onnx")
    assert {each.name for each in done.compared} == {f"model.onnx: output 0 at batch {batch}" for batch in (1, 3)}


def test_onnx_of_a_language_model_leaves_its_cache_out(tmp_path):
    torch.manual_seed(0)
    hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, num_key_value_heads=2)).save_pretrained(tmp_path / "llama")
    model = build(f"hf:{tmp_path / 'llama'}").model
    result = prunekit.prune(model, {"input_ids": torch.randint(3, 100, (1, 12))}, ratio=0.5, uniform=True)
    prunekit.save(result, tmp_path / "slim", spec=f"hf:{tmp_path / 'llama'}")
    assert len(export(tmp_path / "slim", "onnx", tmp_path / "onnx").compared) == 2


@pytest.fixture
def language_model(tmp_path):
    """A small Llama with a tokenizer of letters, and a text."""
    import tokenizers

    torch.manual_seed(0)
    folder = tmp_path / "llama"
    hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, num_key_value_heads=2, max_position_embeddings=32)).save_pretrained(
        folder
    )
    vocabulary = {letter: number for number, letter in enumerate("_abcdefghijklmnopqrstuvwxyz ", 3)} | {"?": 1}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="?"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    hf.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?").save_pretrained(folder)
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog " * 60)
    return folder, tmp_path / "text.txt"


def test_a_language_model_is_pruned_on_text_distilled_on_logits_and_brought_home(language_model, tmp_path):
    folder, words = language_model
    line = ["prune", f"hf:{folder}", "--target", "params<=80%", "--data", str(words), "--val", str(words)]
    steps = ["--recipe", "minitron", "--uniform", "--set", "epochs=3", "--set", "images=8", "--set", "val_images=4"]
    run = CliRunner().invoke(app, [*line, *steps, "--json", "--out", str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    import json

    told = json.loads(run.stdout)
    assert {"next_token_accuracy", "log_likelihood"} <= set(json.dumps(told).replace('"', " ").split())
    assert told["params"]["after"] <= 0.8 * told["params"]["before"]
    loaded = prunekit.load(tmp_path / "out")
    assert loaded.config.intermediate_size == loaded.model.layers[0].mlp.gate_proj.out_features < 128
    run = CliRunner().invoke(app, ["export", str(tmp_path / "out"), "--to", "hf", "--out", str(tmp_path / "home")])
    assert run.exit_code == 0, run.output
    again = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "home")
    assert sum(p.numel() for p in again.parameters()) == told["params"]["after"]
    assert hf.AutoTokenizer.from_pretrained(tmp_path / "home")("the")["input_ids"]


def minitron(language_model, out, *more):
    folder, words = language_model
    line = ["prune", f"hf:{folder}", "--ratio", "mlp.hidden=0.5", "--data", str(words), "--recipe", "minitron"]
    few = ["--set", "steps=4", "--set", "images=8", "--set", "val_images=4", "--set", "latency=false"]
    run = CliRunner().invoke(app, [*line, *few, *more, "--json", "--out", str(out)])
    assert run.exit_code == 0, run.output
    return run.stdout


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_widths_that_can_be_loaded_are_tried_first_and_a_dry_run_tries_them_too(folder, tmp_path, monkeypatch, more):
    tried = []

    def refuses(built, recipe, scorer, **asked):
        tried.append(asked.get("uniform", False))
        raise ConfigError("no such widths")

    monkeypatch.setattr("prunekit.runs.run", refuses)
    run = CliRunner().invoke(app, ["prune", f"hf:{folder}", *more, "--out", str(tmp_path / "out")])
    assert tried == [True, False]
    assert isinstance(run.exception, ConfigError)


def test_a_plan_is_made_as_a_run_would_make_it(folder, tmp_path):
    out = str(tmp_path / "plan.json")
    run = CliRunner().invoke(app, ["plan", f"hf:{folder}", "--target", "params<=77%", "--out", out])
    assert run.exit_code == 0, run.output
    widths = {}
    for width in prunekit.Plan.from_json((tmp_path / "plan.json").read_text()).widths:
        widths.setdefault(str(width.role), set()).add(width.after)
    assert widths["mlp.hidden"]
    assert all(len(found) == 1 for found in widths.values())


def test_text_that_is_judged_is_held_out_of_what_is_trained_on(language_model, tmp_path, caplog):
    from prunekit.runs.held_out import train_and_val

    folder, words = language_model
    built = build(f"hf:{folder}")
    train, val = train_and_val(built, words, None, (None, 100), 0, split=False)
    whole = train_and_val(built, words, words, (None, 100), 0, split=False)[0]
    assert not val.generated
    assert len(train) + len(val) < len(whole)  # and a part to test on, which is never read
    assert not caplog.records
    words.write_text("the quick brown fox jumps over the lazy dog " * 2)
    train, val = train_and_val(built, words, None, (None, 100), 0, split=False)
    assert (len(train), val.generated) == (2, True)
    assert "generated samples" in caplog.text


def test_hidden_states_and_adapters_count_where_they_are_asked_for(language_model, tmp_path, caplog):
    minitron(language_model, tmp_path / "plain")
    assert "hidden states" not in caplog.text
    minitron(language_model, tmp_path / "hidden", "--set", "align_epochs=20")
    minitron(language_model, tmp_path / "lora", "--set", "lora_rank=2", "--set", "lr=0.01")
    found = [load_file(tmp_path / name / "model.safetensors") for name in ("plain", "hidden", "lora")]
    q = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(found[0][q], found[1][q])
    before = load_file(language_model[0] / "model.safetensors")[q]
    assert torch.linalg.matrix_rank(found[0][q] - before, rtol=1e-4) > 2
    assert torch.linalg.matrix_rank(found[2][q] - before, rtol=1e-4) == 2


def test_text_without_a_tokenizer_and_text_that_is_too_short(folder, language_model, tmp_path):
    (tmp_path / "short.txt").write_text("too short")
    (folder / "tokenizer_config.json").unlink()
    for spec, words in ((f"hf:{folder}", "no tokenizer lies"), (f"hf:{language_model[0]}", "one sample takes 32")):
        line = ["prune", spec, "--data", str(tmp_path / "short.txt"), "--out", str(tmp_path / "out")]
        run = CliRunner().invoke(app, line)
        assert run.exit_code != 0
        assert words in (str(run.exception) + run.output)


def test_one_mapping_is_one_item_of_data_for_every_draft(folder):
    torch.manual_seed(0)
    model = build(f"hf:{folder}").model
    ids = torch.randint(3, 100, (4, 12))
    data, x = {"input_ids": ids}, {"input_ids": ids[:1]}
    one = prunekit.plan(model, x, ratio=0.5, uniform=True, data=data)
    several = [{"input_ids": row[None]} for row in ids]
    assert one.cuts == prunekit.plan(model, x, ratio=0.5, uniform=True, data=several).cuts


def test_uniform_widths_are_looked_for_on_one_scoring(folder):
    class Counting:
        """Any scores, and how often each group was asked for."""

        def __init__(self):
            self.asked = {}

        def score(self, group, statistics):
            self.asked[group.name] = self.asked.get(group.name, 0) + 1
            return torch.arange(group.size, dtype=torch.float64)

    model, x, counting = build(f"hf:{folder}").model, {"input_ids": torch.randint(3, 100, (1, 12))}, Counting()
    result = prunekit.prune(model, x, ratio=0.5, uniform=True, scorer=counting)
    assert set(counting.asked.values()) == {1}
    assert "Counting" in result.report.scorer
    assert "Scored" not in result.report.scorer


def test_a_criterion_that_fails_is_not_said_to_be_a_width_that_the_config_cannot_say(folder):
    model, x = build(f"hf:{folder}").model, {"input_ids": torch.randint(3, 100, (1, 12))}
    with pytest.raises(ScorerError, match=r"labels|target|loss"):
        prunekit.prune(model, x, ratio=0.5, uniform=True, scorer="taylor", data=[x])


@pytest.mark.parametrize(("asked", "goes_home"), [((), True), (("--ranking", "global"), False)])
def test_the_command_prunes_for_the_way_back_unless_told_otherwise(folder, tmp_path, asked, goes_home):
    fewer = ["--ratio", "0.4", "--set", "images=2", "--set", "val_images=2", "--set", "latency=false"]
    run = CliRunner().invoke(app, ["prune", f"hf:{folder}", *fewer, *asked, "--out", str(tmp_path / "slim")])
    assert run.exit_code == 0, run.output
    run = CliRunner().invoke(app, ["export", str(tmp_path / "slim"), "--to", "hf", "--out", str(tmp_path / "home")])
    assert (run.exit_code == 0) == goes_home, run.output


def test_the_command_prunes_a_folder_within_less_memory_to_the_same_weights(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("prunekit.offloading.spilling._SMALL", 1)
    few = [
        "--ratio",
        "0.4",
        "--set",
        "images=2",
        "--set",
        "val_images=2",
        "--set",
        "latency=false",
        "--scorer",
        "wanda",
    ]
    held = ["--offload", str(tmp_path / "scratch"), "--offload-memory", "1MB"]
    for name, more in (("plain", []), ("slim", held)):
        run = CliRunner().invoke(app, ["prune", f"hf:{folder}", *few, *more, "--out", str(tmp_path / name)])
        assert run.exit_code == 0, run.output
    assert list((tmp_path / "scratch").iterdir()) == []
    plain, slim = (prunekit.load(tmp_path / name).state_dict() for name in ("plain", "slim"))
    assert all(torch.equal(slim[name], value) for name, value in plain.items())


def test_a_class_whose_config_can_say_nothing_is_pruned_by_the_command_all_the_same(tmp_path):
    torch.manual_seed(0)
    config = hf.MobileNetV1Config(image_size=32, depth_multiplier=0.25, num_labels=3)
    hf.MobileNetV1ForImageClassification(config).save_pretrained(tmp_path / "net")
    few = ["--set", "images=2", "--set", "val_images=2", "--set", "latency=false"]
    run = CliRunner().invoke(app, ["prune", f"hf:{tmp_path / 'net'}", *few, "--out", str(tmp_path / "slim")])
    assert run.exit_code == 0, run.output
    assert "pruned as without --uniform" in " ".join(run.output.split())
    widths = [m.out_channels for m in prunekit.load(tmp_path / "slim").modules() if isinstance(m, torch.nn.Conv2d)]
    assert widths[1] < 8 or widths[2] < 16
