import pytest
from prunekit_sam.data import GeneratedScenes, MaskedImage
from prunekit_sam.exports.config import model_config
from prunekit_sam.exports.hf_folder import renamed
from prunekit_sam.models import build_sam
from prunekit_sam.promptable import Prompted
from prunekit_sam.promptable_hf import FAMILIES, PromptedHF
from prunekit_sam.prompts import ask, parsed

transformers = pytest.importorskip("transformers")


def test_answers_like_the_same_weights_in_segment_anything():
    sam = build_sam("nano")
    config = {k: v for k, v in model_config(sam).items() if k not in ("model_type", "architectures")}
    model = transformers.SamModel(transformers.SamConfig(**config)).eval()
    model.load_state_dict(renamed(sam, sam.state_dict()), strict=True)
    whole = GeneratedScenes(1, seed=5, size=150)[0]
    assert whole.masks is not None
    sample = MaskedImage("wide", whole.image[:100], whole.masks[:, :100], whole.points, whole.boxes)
    encoded = []
    model.vision_encoder.register_forward_hook(lambda *_: encoded.append(1))
    asked = [ask(protocol, sample) for protocol in parsed("point,box,multimask")]
    answers = PromptedHF(model, FAMILIES["sam"]).predict(sample.image, asked)
    assert len(encoded) == 1
    for found, wanted in zip(answers, Prompted(sam).predict(sample.image, asked), strict=True):
        assert found.shape == wanted.shape
        assert wanted.any()
        assert (found != wanted).mean() < 1e-3  # a pixel at the threshold may flip
