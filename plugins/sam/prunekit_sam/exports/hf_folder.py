"""``hf``: a folder that Hugging Face transformers loads as ``SamModel``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from segment_anything.modeling import Sam
from torch import Tensor

from prunekit.errors import ExportError
from prunekit.exports import agreeing, only_fp32, optional
from prunekit.plugins import Compared

from ..promptable_hf import quiet
from .config import model_config, write_preprocessor
from .geometry import buildable, whole_sam
from .probing import NAMES, answers, probe
from .scale import rescaled_state

if TYPE_CHECKING:
    from prunekit.plans import Bundle

# segment_anything's name -> transformers' name, in order
RENAMES = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"^(vision_encoder)\.patch_embed\.proj\.", r"\1.patch_embed.projection."),
    (r"^(vision_encoder)\.blocks\.", r"\1.layers."),
    (r"^(vision_encoder\.layers\.\d+)\.norm", r"\1.layer_norm"),
    (r"^(vision_encoder\.neck)\.0\.", r"\1.conv1."),
    (r"^(vision_encoder\.neck)\.1\.", r"\1.layer_norm1."),
    (r"^(vision_encoder\.neck)\.2\.", r"\1.conv2."),
    (r"^(vision_encoder\.neck)\.3\.", r"\1.layer_norm2."),
    (r"^(prompt_encoder)\.pe_layer\.positional_encoding_gaussian_matrix$", r"\1.shared_embedding.positional_embedding"),
    (r"^(prompt_encoder)\.point_embeddings\.", r"\1.point_embed."),
    (r"^(prompt_encoder)\.mask_downscaling\.0\.", r"\1.mask_embed.conv1."),
    (r"^(prompt_encoder)\.mask_downscaling\.1\.", r"\1.mask_embed.layer_norm1."),
    (r"^(prompt_encoder)\.mask_downscaling\.3\.", r"\1.mask_embed.conv2."),
    (r"^(prompt_encoder)\.mask_downscaling\.4\.", r"\1.mask_embed.layer_norm2."),
    (r"^(prompt_encoder)\.mask_downscaling\.6\.", r"\1.mask_embed.conv3."),
    (r"^(mask_decoder)\.output_upscaling\.0\.", r"\1.upscale_conv1."),
    (r"^(mask_decoder)\.output_upscaling\.1\.", r"\1.upscale_layer_norm."),
    (r"^(mask_decoder)\.output_upscaling\.3\.", r"\1.upscale_conv2."),
    (r"^(mask_decoder\.transformer\.layers\.\d+)\.norm", r"\1.layer_norm"),
    (r"^(mask_decoder\.transformer)\.norm_final_attn\.", r"\1.layer_norm_final_attn."),
)
HEADS = re.compile(r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.layers\.(\d+)\.")
TIED = "shared_image_embedding.positional_embedding"


def hf(bundle: Bundle, folder: Path, precisions: Sequence[str]) -> Sequence[Compared]:
    """SAM of uniform widths: a folder for SamModel.from_pretrained of Hugging Face transformers.

    ``config.json``, ``model.safetensors`` and ``preprocessor_config.json``. Raises ExportError for other widths.
    """
    only_fp32(precisions, "hf")
    slimmed = whole_sam(bundle.model)
    buildable(slimmed, "hf")
    transformers = optional("transformers", "prunekit-sam[hf]")
    model = transformers.SamModel(transformers.SamConfig(**_as_json(model_config(slimmed)))).eval()
    model.load_state_dict(renamed(slimmed, rescaled_state(slimmed)), strict=True)
    with quiet(transformers):
        model.save_pretrained(folder)
        again = _read_back(transformers, folder)
    write_preprocessor(slimmed, folder)
    given = probe(slimmed)
    wanted, found = answers(slimmed, given), _answers(again, given)
    return [agreeing(name, wanted[name], found[name]) for name in NAMES]


def renamed(sam: Sam, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` of a Sam under the names that SamModel has for the same tensors."""
    depths = {"iou_prediction_head": sam.mask_decoder.iou_prediction_head.num_layers}
    out = {}
    for old, tensor in state.items():
        name = old
        for pattern, new in RENAMES:
            name = re.sub(pattern, new, name)
        if found := HEADS.match(name):
            head, number = found[1], int(found[2])
            last = depths.get(head.rsplit(".", 1)[-1], 3) - 1
            place = "proj_in" if number == 0 else "proj_out" if number == last else f"layers.{number - 1}"
            name = f"{head}.{place}.{name[found.end() :]}"
        out[name] = tensor
    out[TIED] = out["prompt_encoder.shared_embedding.positional_embedding"]
    return out


def _as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in ("model_type", "architectures")}


def _read_back(transformers: Any, folder: Path) -> Any:
    model, info = transformers.SamModel.from_pretrained(folder, output_loading_info=True)
    faults = {kind: sorted(names) for kind, names in info.items() if names}
    if faults:
        raise ExportError(f"transformers does not load what it has written: {faults}", where="model.safetensors")
    return model.eval()


@torch.no_grad()
def _answers(model: Any, given: Any) -> dict[str, Tensor]:
    embedding = model.get_image_embeddings(given.pixels)
    out = model(pixel_values=given.pixels, input_points=given.points, input_labels=given.labels, multimask_output=True)
    return dict(zip(NAMES, (embedding, out.iou_scores, out.pred_masks), strict=True))
