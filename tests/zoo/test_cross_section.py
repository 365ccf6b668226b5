"""A cross-section of ``make zoo``: real architectures, nothing configured, judged by the rule of the whole list."""

from __future__ import annotations

import logging

import pytest
import torch
from support.sweeps import but_for_sweeps

from benchmarks.zoo.row import measure
from benchmarks.zoo.rows import DEFAULT_LIST, OUTSIDE_LIST, builder, read_row
from benchmarks.zoo.tools import TOOLS

pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore")]  # what other libraries warn of is theirs

SHARED = [
    "tv/resnet18",
    "tv/shufflenet_v2_x0_5",
    "hf/swin",
    "sam/image_encoder_small",
    "hf/bert",
    "hf/gpt2",
    "hf/llama_gqa",
    "hf/t5",
    "hf/mamba",
    "hf/sam2_vision",
    "timm/convnext",
    "timm/efficientvit_mit",
    "timm/levit",
    "timm/vision_transformer_relpos",
]
OUTSIDE = [
    "hf/albert",
    "hf/deberta_v2",
    "hf/gemma2",
    "hf/gpt_neox",
    "hf/mixtral",
    "hf/segformer",
    "hf/wav2vec2",
    "hf/whisper",
    "timm/test_vit",
    "timm/hrnet_w18_small",
    "tv/mobilenet_v3_small",
]
SWEPT = {
    "tv/shufflenet_v2_x0_5",
    "hf/sam2_vision",
    "timm/efficientvit_mit",
    "timm/levit",
    "timm/vision_transformer_relpos",
    "hf/segformer",
    "hf/wav2vec2",
    "hf/whisper",
    "timm/hrnet_w18_small",
    "tv/mobilenet_v3_small",
}
SMALLER = {"timm/hrnet_w18_small": [3, 64, 64]}  # than what the whole list takes


def pruned(path, name):
    logging.getLogger("prunekit").addHandler(logging.NullHandler())
    threads = torch.get_num_threads()
    try:
        entry = read_row(path, name).entry
        if name in SMALLER:
            entry = {**entry, "image": SMALLER[name]}
        return measure(TOOLS["prunekit"], builder(path), entry)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", but_for_sweeps(SHARED, SWEPT & {*SHARED}))
def test_rows_of_the_shared_list(name):
    if not DEFAULT_LIST.is_file():
        pytest.skip("needs shared/zoo beside the repository")
    found = pruned(DEFAULT_LIST, name)
    assert found["status"] == "ok", found
    assert found["symmetry"] == "passed"
    assert found["removed"] >= 0.2


@pytest.mark.parametrize("name", but_for_sweeps(OUTSIDE, SWEPT & {*OUTSIDE}))
def test_models_outside_that_list(name):
    found = pruned(OUTSIDE_LIST, name)
    assert found["status"] == "ok", found
    assert found["symmetry"] == "passed"
    assert found["removed"] >= 0.2
