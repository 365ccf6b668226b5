"""Token ids as batches, by what reads them."""

import torch
import transformers as hf
from prunekit_hf.text_data import ids_of, reads_text, text_windows

T5 = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
TEXT = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
CLIP = {
    "text_config": {**TEXT, "max_position_embeddings": 20, "eos_token_id": 39},
    "vision_config": {**TEXT, "image_size": 32, "patch_size": 16},
    "projection_dim": 8,
}


def test_a_decoder_beside_an_encoder_reads_the_same_ids():
    model = hf.T5ForConditionalGeneration(hf.T5Config(**T5)).eval()
    batch = text_windows(model, None, "train", 2, seed=0).batch([0, 1])
    assert reads_text(model)
    assert torch.equal(batch["decoder_input_ids"], batch["input_ids"])
    assert ids_of(batch).shape[0] == 2
    assert model(**batch).logits.shape[:2] == ids_of(batch).shape


def test_a_model_of_text_alone_reads_one_tensor():
    model = hf.BertModel(hf.BertConfig(**TEXT)).eval()
    batch = text_windows(model, None, "train", 1, seed=0).batch([0])
    assert reads_text(model)
    assert ids_of(batch) is batch


def test_a_model_of_text_and_pictures_does_not_read_text_alone():
    assert not reads_text(hf.CLIPModel(hf.CLIPConfig(**CLIP)))
