"""``prunekit eval`` of language models: perplexity, its spread, the original and an answer without a model."""

import json
import math

import pytest
import torch
import transformers as hf
from prunekit_hf.examination import bigram_accuracy, told_apart
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

import prunekit
from prunekit.cli.app import run
from prunekit.errors import InputError
from prunekit.plugins import Examination

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran", "to", "red", "barn"]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def tokenizer(words):
    made = Tokenizer(WordLevel({word: k for k, word in enumerate(["[UNK]", *words])}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    return hf.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")


def saved(folder, words=WORDS, seed=0):
    torch.manual_seed(seed)
    hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=16, **SMALL)).save_pretrained(folder)
    tokenizer(words).save_pretrained(folder)
    return folder


@pytest.fixture
def model(tmp_path):
    return saved(tmp_path / "llama")


@pytest.fixture
def text(tmp_path):
    draw = torch.randint(len(WORDS), (256 * 3 + 10,), generator=torch.Generator().manual_seed(0))
    (tmp_path / "text.txt").write_text(" ".join(WORDS[k] for k in draw))
    return tmp_path / "text.txt"


def test_the_figures_are_those_of_the_formulas(model, text, capsys):
    assert run(["eval", f"hf:{model}", "--data", str(text), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    figures = report["rows"][f"hf:{model}"]["text"]
    ids = torch.tensor(tokenizer(WORDS)(text.read_text())["input_ids"])[: 3 * 256].view(3, 256)
    with torch.no_grad():
        logits = hf.AutoModelForCausalLM.from_pretrained(model)(ids).logits[:, :-1]
    losses = -logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0].mean(1)
    assert figures["perplexity"] == pytest.approx(float(losses.mean().exp()), rel=1e-5)
    side = 1.96 * float(losses.std()) / math.sqrt(3)
    assert figures["perplexity_high"] == pytest.approx(float((losses.mean() + side).exp()), rel=1e-4)
    assert figures["next_token_accuracy"] == pytest.approx(float((logits.argmax(-1) == ids[:, 1:]).float().mean()))
    assert figures["times_first"] == figures["times_first_low"] == 1
    assert (report["windows"], report["tokens"]) == (3, 3 * 255)


def test_a_pruned_folder_stands_beside_its_original(model, text, tmp_path, capsys):
    asked = ["--ratio", "0.5", "--uniform", "--data", str(text), "--out", str(tmp_path / "slim"), "--json"]
    assert run(["prune", f"hf:{model}", *asked]) == 0
    assert run(["export", str(tmp_path / "slim"), "--to", "hf", "--out", str(tmp_path / "home"), "--json"]) == 0
    capsys.readouterr()
    folders = [str(tmp_path / "slim"), str(tmp_path / "home")]
    assert run(["eval", *folders, "--data", str(text), "--images", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert list(rows) == [f"hf:{model}", *folders, "trivial"]
    slim, home = (rows[name]["text"] for name in folders)
    assert slim["perplexity"] == pytest.approx(home["perplexity"], rel=1e-5)
    assert slim["times_first"] == pytest.approx(slim["perplexity"] / rows[f"hf:{model}"]["text"]["perplexity"])
    assert slim["times_first_low"] < slim["times_first"] < slim["times_first_high"]
    assert run(["eval", *folders, "--data", str(text), "--images", "2"]) == 0
    shown = capsys.readouterr().out
    assert "2 windows of 256 tokens" in shown
    assert "times first" in " ".join(shown.split())
    assert f"{slim['perplexity']:.1f}" in shown
    assert f"{slim['perplexity_high']:.1f}]" in shown


def test_the_trivial_answer_does_not_see_the_window_that_it_answers():
    again, once = torch.tensor([[1, 2, 1, 2, 1, 2]]), torch.tensor([[3, 4, 3, 4, 3, 4]])
    assert bigram_accuracy([again, again]) == 1
    assert bigram_accuracy([again, once]) == 0
    assert bigram_accuracy([again, again, once]) == pytest.approx(10 / 15)


def test_what_cannot_be_compared_is_refused(model, text, tmp_path, capsys):
    other = saved(tmp_path / "other", WORDS[::-1])
    assert run(["eval", f"hf:{model}", f"hf:{other}", "--data", str(text)]) == 2
    assert "tokenizers" in capsys.readouterr().err
    bert = tmp_path / "bert"
    hf.BertForMaskedLM(hf.BertConfig(vocab_size=16, **SMALL)).save_pretrained(bert)
    assert run(["eval", f"hf:{bert}", "--data", str(text)]) == 2
    assert "does not tell the next token" in capsys.readouterr().err
    assert run(["eval", f"hf:{model}", "--data", str(text), "--prompts", "box"]) == 2
    assert "takes no prompts" in capsys.readouterr().err
    assert run(["eval", f"hf:{model}", "--data", str(tmp_path / "none.txt")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_one_window_has_no_spread(model, text):
    made = {"it": lambda: prunekit.registry.build(f"hf:{model}").model}
    found = told_apart(made, Examination(text, images=1), lambda *_: None).rows["it"]["text"]
    assert found["perplexity"] > 1
    assert found["perplexity_low"] is None
    assert found["times_first"] == 1
    with pytest.raises(InputError, match="unknown split"):
        told_apart(made, Examination(text, split="dev"), lambda *_: None)
