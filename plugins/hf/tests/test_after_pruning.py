"""What people do with a language model after it was pruned: train, adapt, quantise, compile, serve."""

import warnings

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

import prunekit

CONFIG = {
    "vocab_size": 40,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
}
IDS = torch.randint(3, 40, (2, 12), generator=torch.Generator().manual_seed(0))


def pruned():
    """A model at home in its library after the cut."""
    torch.manual_seed(0)
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**CONFIG)).eval()
    result = prunekit.prune(model, {"input_ids": IDS[:1], "use_cache": False}, ratio=0.5, uniform=True)
    assert result.home is not None
    assert not result.home.trouble
    assert model.config.hidden_size < 64
    return model


@pytest.fixture
def model():
    return pruned()


def test_trainer_lowers_the_loss_and_saves_what_loads(model, tmp_path):
    data = [{"input_ids": row, "labels": row} for row in IDS] * 4

    def loss(of):
        with torch.no_grad():
            return float(of.eval()(input_ids=IDS, labels=IDS).loss)

    before = loss(model)
    told = hf.TrainingArguments(
        str(tmp_path), max_steps=8, per_device_train_batch_size=2, learning_rate=1e-2, report_to=[], use_cpu=True
    )
    trainer = hf.Trainer(model, told, train_dataset=data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pinned memory, where there is no accelerator
        trainer.train()
    assert loss(model) < before
    trainer.save_model(tmp_path / "kept")
    again = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "kept")
    assert loss(again) == pytest.approx(loss(model), rel=1e-5)


def test_a_pipeline_writes_with_it(model):
    made = Tokenizer(WordLevel({f"w{k}": k for k in range(40)}, unk_token="w0"))
    made.pre_tokenizer = Whitespace()
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="w0", pad_token="w1")
    writer = hf.pipeline("text-generation", model=model, tokenizer=tokenizer, device="cpu")
    told = writer("w3 w4 w5", max_new_tokens=4, do_sample=False, return_full_text=False)[0]["generated_text"]
    ids = model.generate(torch.tensor([[3, 4, 5]]), max_new_tokens=4, do_sample=False, pad_token_id=1)[0, 3:]
    assert told.split() == [f"w{int(k)}" for k in ids]


def test_an_adapter_trains_and_is_merged_away(model, tmp_path):
    peft = pytest.importorskip("peft")
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    optimizer = torch.optim.AdamW([p for p in wrapped.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(5):
        losses.append(wrapped(input_ids=IDS, labels=IDS).loss)
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    merged = wrapped.merge_and_unload().eval()
    merged.save_pretrained(tmp_path)
    with torch.no_grad():
        again = hf.AutoModelForCausalLM.from_pretrained(tmp_path)(IDS).logits
        torch.testing.assert_close(again, merged(IDS).logits)


def test_int8_weights_stay_near(model):
    quantization = pytest.importorskip("torchao.quantization")
    with torch.no_grad():
        wanted = model(IDS).logits
        quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
        found = model(IDS).logits
    assert type(model.model.layers[0].mlp.down_proj.weight).__name__ == "Int8Tensor"
    assert 0 < float((found - wanted).norm() / wanted.norm()) < 0.02


def test_a_compiled_model_gives_the_same_with_two_batch_sizes(model):
    compiled = torch.compile(model, backend="eager", dynamic=True)
    with torch.no_grad():
        for ids in (IDS, IDS[:1]):
            torch.testing.assert_close(compiled(ids, use_cache=False).logits, model(ids, use_cache=False).logits)


def test_autocast_runs_forward_and_backward(model):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    with torch.no_grad():
        assert float(loss) == pytest.approx(float(model(input_ids=IDS, labels=IDS).loss), rel=0.02)


def test_a_model_in_half_precision_is_pruned_and_runs():
    torch.manual_seed(0)
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**CONFIG)).to(torch.bfloat16).eval()
    prunekit.prune(model, {"input_ids": IDS[:1], "use_cache": False}, ratio=0.5, uniform=True)
    with torch.no_grad():
        assert model(IDS).logits.dtype == torch.bfloat16
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_what_a_class_draws_when_it_is_built_does_not_move_the_random_state():
    model = hf.DiffLlamaForCausalLM(hf.DiffLlamaConfig(**CONFIG)).eval()
    before = torch.get_rng_state()
    prunekit.prune(model, {"input_ids": IDS[:1], "use_cache": False}, ratio=0.5, scorer="magnitude")
    assert torch.equal(torch.get_rng_state(), before)
