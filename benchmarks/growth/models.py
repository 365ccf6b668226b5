"""Models that grow along one axis, without weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Built = tuple[nn.Module, Any]
PARAMS, BOTH = "params<=70%", "macs<=70%, memory<=75%"


class Mixture(nn.Module):
    """Experts that are modules of their own, all of which run, weighted by a router."""

    def __init__(self, width: int, hidden: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)) for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        shares = self.router(x).softmax(-1)
        return x + sum(expert(x) * shares[..., k, None] for k, expert in enumerate(self.experts))


def llama(layers: int = 8, width: int = 8192) -> Built:
    """Llama of the proportions of 70B: that model at 80 layers and a width of 8192."""
    from transformers import LlamaConfig, LlamaForCausalLM

    heads = width // 128
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=width * 7 // 2,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 8),
        vocab_size=32_000,
    )
    tokens = torch.ones(1, 16, dtype=torch.long, device="cpu")
    return LlamaForCausalLM(config).eval(), {"input_ids": tokens, "use_cache": False}


def qwen_moe(layers: int = 48, experts: int = 60) -> Built:
    """Experts in one tensor, as Qwen2-MoE has them."""
    from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

    config = Qwen2MoeConfig(num_hidden_layers=layers, num_experts=experts)
    tokens = torch.ones(1, 16, dtype=torch.long, device="cpu")
    return Qwen2MoeForCausalLM(config).eval(), {"input_ids": tokens, "use_cache": False}


def mixture(layers: int = 4, experts: int = 60) -> Built:
    """Experts that are modules."""
    blocks = (Mixture(1024, 704, experts) for _ in range(layers))
    return nn.Sequential(nn.Linear(64, 1024), *blocks, nn.Linear(1024, 64)).eval(), torch.empty(1, 16, 64)


def vit_h() -> Built:
    """SAM's largest encoder."""
    from segment_anything import sam_model_registry

    return sam_model_registry["vit_h"]().image_encoder.eval(), torch.empty(1, 3, 1024, 1024)


def vit_b(image: int = 1024) -> Built:
    """SAM's smallest encoder for smaller images."""
    from segment_anything.modeling import ImageEncoderViT

    encoder = ImageEncoderViT(
        img_size=image, use_rel_pos=True, window_size=14, global_attn_indexes=(2, 5, 8, 11), qkv_bias=True
    )
    return encoder.eval(), torch.empty(1, 3, image, image)


# series -> what grows, the builders, the target; a line is fitted where there are three points or more
SERIES: dict[str, tuple[str, dict[int, Callable[[], Built]], str]] = {
    "Llama": ("layers", {n: partial(llama, layers=n) for n in (8, 16, 32, 64, 80, 128)}, PARAMS),
    "Llama, two limits": ("layers", {n: partial(llama, layers=n) for n in (8, 16, 32, 64, 80, 128)}, BOTH),
    "Llama, wider": ("width", {n: partial(llama, width=n) for n in (1024, 2048, 4096, 8192)}, PARAMS),
    "MoE, experts as modules": ("experts", {n: partial(mixture, experts=n) for n in (8, 15, 30, 60)}, PARAMS),
    "MoE of 60 experts as modules": ("layers", {n: partial(mixture, layers=n) for n in (6, 12, 24, 48)}, PARAMS),
    "Qwen2-MoE of 60 experts": ("layers", {n: partial(qwen_moe, layers=n) for n in (6, 12, 24, 48)}, BOTH),
    "SAM ViT-B": ("image", {n: partial(vit_b, image=n) for n in (256, 512, 1024)}, BOTH),
    "SAM ViT-H": ("layers", {32: vit_h}, BOTH),
}
