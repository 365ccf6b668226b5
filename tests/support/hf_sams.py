"""Small SAMs of transformers with random weights, the classes and keys of the published ones."""

from __future__ import annotations

from typing import Any

import transformers

PROMPTS = {"hidden_size": 32}
DECODER = {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 4, "iou_head_hidden_dim": 32}


def sam() -> Any:
    vision = {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "mlp_dim": 192,
        "output_channels": 32,
        "num_pos_feats": 16,
        "image_size": 64,
        "patch_size": 8,
        "window_size": 4,
        "global_attn_indexes": [1],
    }
    prompts = {**PROMPTS, "image_size": 64, "patch_size": 8}
    config = transformers.SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=DECODER)
    return transformers.SamModel(config)


def sam2() -> Any:
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=16,
        num_attention_heads=1,
        blocks_per_stage=[1, 1, 1],
        embed_dim_per_stage=[16, 32, 64],
        num_attention_heads_per_stage=[1, 2, 4],
        image_size=[64, 64],
        window_size_per_stage=[4, 4, 4],
        global_attention_blocks=[],
        window_positional_embedding_background_size=[4, 4],
        num_query_pool_stages=2,
    )
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16],
        fpn_hidden_size=32,
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_top_down_levels=[1],
    )
    prompts = {**PROMPTS, "image_size": 64, "patch_size": 16}
    config = transformers.Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=DECODER)
    return transformers.Sam2Model(config)


def sam3() -> Any:
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 56,
        "patch_size": 14,
        "window_size": 2,
        "global_attn_indexes": [1],
        "pretrain_image_size": 56,
    }
    vision = transformers.Sam3VisionConfig(
        backbone_config=backbone, fpn_hidden_size=32, backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]]
    )
    prompts = {**PROMPTS, "image_size": 56, "patch_size": 14}
    config = transformers.Sam3TrackerConfig(
        vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=DECODER
    )
    return transformers.Sam3TrackerModel(config)


MAKERS = {"sam": sam, "sam2": sam2, "sam3": sam3}
