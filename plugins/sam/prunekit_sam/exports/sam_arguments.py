"""What segment_anything's constructors have to be given to build a slimmed SAM of uniform widths."""

from __future__ import annotations

import math
from typing import Any

from segment_anything.modeling import Sam

from .geometry import Widths


def arguments(sam: Sam, widths: Widths) -> dict[str, Any]:
    """JSON values by constructor: ``image_encoder``, ``prompt_encoder``, ``transformer``, ``mask_decoder``, ``sam``.

    All are keyword arguments under their own names, except ``norm_eps``, the eps of the encoder's layer norms.
    """
    encoder, prompts, decoder = sam.image_encoder, sam.prompt_encoder, sam.mask_decoder
    windows = [block.window_size for block in encoder.blocks]
    return {
        "image_encoder": {
            "img_size": encoder.img_size,
            "patch_size": encoder.patch_embed.proj.kernel_size[0],
            "in_chans": encoder.patch_embed.proj.in_channels,
            "embed_dim": widths.embedding,
            "depth": len(windows),
            "num_heads": widths.heads,
            "mlp_ratio": mlp_ratio(widths.embedding, widths.mlp),
            "out_chans": encoder.neck[0].out_channels,
            "qkv_bias": encoder.blocks[0].attn.qkv.bias is not None,
            "use_abs_pos": encoder.pos_embed is not None,
            "use_rel_pos": encoder.blocks[0].attn.use_rel_pos,
            "window_size": max(windows),
            "global_attn_indexes": [number for number, window in enumerate(windows) if not window],
            "norm_eps": encoder.blocks[0].norm1.eps,
        },
        "prompt_encoder": {
            "embed_dim": prompts.embed_dim,
            "image_embedding_size": list(prompts.image_embedding_size),
            "input_image_size": list(prompts.input_image_size),
            "mask_in_chans": prompts.mask_downscaling[3].out_channels,
        },
        "transformer": {
            "depth": decoder.transformer.depth,
            "embedding_dim": decoder.transformer.embedding_dim,
            "num_heads": decoder.transformer.num_heads,
            "mlp_dim": decoder.transformer.mlp_dim,
            "attention_downsample_rate": downsample_rate(sam),
        },
        "mask_decoder": {
            "transformer_dim": decoder.transformer_dim,
            "num_multimask_outputs": decoder.num_multimask_outputs,
            "iou_head_depth": decoder.iou_prediction_head.num_layers,
            "iou_head_hidden_dim": decoder.iou_prediction_head.layers[0].out_features,
        },
        "sam": {"pixel_mean": sam.pixel_mean.flatten().tolist(), "pixel_std": sam.pixel_std.flatten().tolist()},
    }


def mlp_ratio(embedding: int, mlp: int) -> float:
    """The ratio from which ``int(embedding * ratio)`` gives ``mlp``: the quotient, or the next float above it."""
    ratio = mlp / embedding
    return ratio if int(embedding * ratio) == mlp else math.nextafter(ratio, math.inf)


def downsample_rate(sam: Sam) -> int:
    """By how much the decoder's cross attention is narrower than its embedding."""
    transformer = sam.mask_decoder.transformer
    return int(transformer.embedding_dim) // int(transformer.layers[0].cross_attn_token_to_image.internal_dim)
