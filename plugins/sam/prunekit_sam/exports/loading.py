"""Builds a stock segment_anything Sam of other widths from the two files beside this one; needs nothing of prunekit."""

import json
from functools import partial
from pathlib import Path

from safetensors.torch import load_file
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn


def load_sam(folder: str | Path) -> Sam:
    """The Sam in ``folder``, in evaluation mode on the CPU, for SamPredictor and all else that takes a Sam."""
    given = json.loads((Path(folder) / "sam.json").read_text())
    encoder = given["image_encoder"]
    norm = partial(nn.LayerNorm, eps=encoder.pop("norm_eps"))
    prompts = {
        key: tuple(value) if isinstance(value, list) else value for key, value in given["prompt_encoder"].items()
    }
    sam = Sam(
        ImageEncoderViT(norm_layer=norm, **encoder),
        PromptEncoder(**prompts),
        MaskDecoder(transformer=TwoWayTransformer(**given["transformer"]), **given["mask_decoder"]),
        **given["sam"],
    )
    sam.load_state_dict(load_file(Path(folder) / "sam.safetensors"), strict=True)
    return sam.eval()
