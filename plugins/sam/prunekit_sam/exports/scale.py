"""The attention's scale as other classes compute it.

A slimmed block keeps the float that its constructor stored, 1/sqrt(d) of the head width d before pruning. A class that
is built for the new width d' scales by 1/sqrt(d'). The keys take up the quotient: k times sqrt(d'/d). The relative
positions meet the unscaled queries and stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from segment_anything.modeling import Sam
from torch import Tensor

from .geometry import head_dim


def rescaled_state(sam: Sam) -> dict[str, Tensor]:
    """``sam``'s state, its tensors by name, for classes that scale by the width they were built with."""
    state: Mapping[str, Tensor] = sam.state_dict()
    out = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
    for number, block in enumerate(sam.image_encoder.blocks):
        factor = float(block.attn.scale) * math.sqrt(head_dim(block.attn))
        rows = block.attn.qkv.out_features // 3
        for kind in ("weight", "bias"):
            name = f"image_encoder.blocks.{number}.attn.qkv.{kind}"
            if name in out:
                out[name][rows : 2 * rows] *= factor
    return out
