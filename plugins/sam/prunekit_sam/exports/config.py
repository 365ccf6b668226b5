"""The two JSON files by which Hugging Face transformers and transformers.js know a SAM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segment_anything.modeling import Sam

from .geometry import uniform
from .sam_arguments import downsample_rate


def model_config(sam: Sam) -> dict[str, Any]:
    """``config.json``: what SamConfig takes, less the widths where blocks differ: it has one for all."""
    encoder, prompts, decoder = sam.image_encoder, sam.prompt_encoder, sam.mask_decoder
    patch = encoder.patch_embed.proj.kernel_size[0]
    windows = [block.window_size for block in encoder.blocks]
    widths = uniform(sam)
    vision = {
        "image_size": encoder.img_size,
        "patch_size": patch,
        "num_channels": encoder.patch_embed.proj.in_channels,
        "num_hidden_layers": len(windows),
        "output_channels": encoder.neck[0].out_channels,
        "qkv_bias": encoder.blocks[0].attn.qkv.bias is not None,
        "use_abs_pos": encoder.pos_embed is not None,
        "use_rel_pos": encoder.blocks[0].attn.use_rel_pos,
        "window_size": max(windows),
        "global_attn_indexes": [number for number, window in enumerate(windows) if not window],
        "num_pos_feats": prompts.embed_dim // 2,
        "layer_norm_eps": encoder.blocks[0].norm1.eps,
    }
    if widths is not None:
        vision |= {"hidden_size": widths.embedding, "num_attention_heads": widths.heads, "mlp_dim": widths.mlp}
    return {
        "model_type": "sam",
        "architectures": ["SamModel"],
        "vision_config": vision,
        "prompt_encoder_config": {
            "hidden_size": prompts.embed_dim,
            "image_size": encoder.img_size,
            "patch_size": patch,
            "mask_input_channels": prompts.mask_downscaling[3].out_channels,
            "num_point_embeddings": prompts.num_point_embeddings,
        },
        "mask_decoder_config": {
            "hidden_size": decoder.transformer_dim,
            "mlp_dim": decoder.transformer.mlp_dim,
            "num_hidden_layers": decoder.transformer.depth,
            "num_attention_heads": decoder.transformer.num_heads,
            "attention_downsample_rate": downsample_rate(sam),
            "num_multimask_outputs": decoder.num_multimask_outputs,
            "iou_head_depth": decoder.iou_prediction_head.num_layers,
            "iou_head_hidden_dim": decoder.iou_prediction_head.layers[0].out_features,
            # segment_anything's decoder has torch's default, SamConfig's default is another
            "layer_norm_eps": decoder.transformer.layers[0].norm1.eps,
        },
    }


def write_preprocessor(sam: Sam, folder: Path) -> None:
    """``preprocessor_config.json``: longest side to the image size, SAM's mean and std, zero padding to a square."""
    side, mask = int(sam.image_encoder.img_size), int(sam.prompt_encoder.mask_input_size[0])
    values = {
        "image_processor_type": "SamImageProcessor",
        "processor_class": "SamProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"longest_edge": side},
        "mask_size": {"longest_edge": mask},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [value / 255 for value in sam.pixel_mean.flatten().tolist()],
        "image_std": [value / 255 for value in sam.pixel_std.flatten().tolist()],
        "do_pad": True,
        "pad_size": {"height": side, "width": side},
        "mask_pad_size": {"height": mask, "width": mask},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(values, indent=1) + "\n")
