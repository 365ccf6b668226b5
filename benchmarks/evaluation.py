"""Scoring one image: the encoder once for all masks, against encoding again for every mask, as published scripts do.

    python benchmarks/evaluation.py                            # a small SAM at 256 px, 44 masks, both ways in full
    python benchmarks/evaluation.py --model vit_b --timed 2    # vit_b at 1024, random weights

Both ways answer the same 44 points, on the same weights and image, in one process; each is warmed up with one mask
first. With ``--timed N`` the second way is timed on N masks and multiplied, and the row says so. The masks of both ways
are compared: the share of pixels that differ is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

SEED, SIDE, DEPTH, WIDTH = 0, 256, 12, 384  # of the small model: an encoder that dominates, as in the real ones


def small() -> Any:
    """A SAM of segment_anything's classes whose encoder is large beside its decoder, for 256 px images."""
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    tokens = SIDE // 8
    encoder = ImageEncoderViT(
        img_size=SIDE,
        patch_size=8,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=6,
        out_chans=128,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=(2, 5, 8, 11),
    )
    prompts = PromptEncoder(
        embed_dim=128, image_embedding_size=(tokens, tokens), input_image_size=(SIDE, SIDE), mask_in_chans=16
    )
    transformer = TwoWayTransformer(depth=2, embedding_dim=128, num_heads=4, mlp_dim=256)
    decoder = MaskDecoder(transformer_dim=128, transformer=transformer)
    return Sam(encoder, prompts, decoder)


def seconds(run: Callable[[], Any], device: str) -> tuple[float, Any]:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    start = time.perf_counter()
    found = run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small", choices=("small", "nano", "vit_b"))
    parser.add_argument("--masks", type=int, default=44)
    parser.add_argument("--timed", type=int, help="masks that re-encoding is timed on; all without")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    from prunekit_sam import models
    from prunekit_sam.promptable import Prompted
    from prunekit_sam.prompts import Prompts

    torch.manual_seed(SEED)
    sam = (small() if options.model == "small" else models.build_sam(options.model)).eval().to(options.device)
    side = sam.image_encoder.img_size
    rng = np.random.default_rng(SEED)
    image = rng.integers(0, 256, (side * 3 // 4, side, 3), np.uint8)
    points = rng.uniform((0, 0), (side, side * 3 // 4), (options.masks, 2)).astype(np.float32)[:, None]
    model = Prompted(sam)
    timed = min(options.timed or options.masks, options.masks)

    def once() -> np.ndarray:
        return model.predict(image, [Prompts(points, None)])[0]

    def again() -> np.ndarray:
        return np.concatenate([model.predict(image, [Prompts(points[i : i + 1], None)])[0] for i in range(timed)])

    model.predict(image, [Prompts(points[:1], None)])
    fast, answers = seconds(once, options.device)
    slow, repeated = seconds(again, options.device)
    whole = slow * options.masks / timed
    row = {
        "model": options.model,
        "side": side,
        "masks": options.masks,
        "device": options.device,
        "once_seconds": round(fast, 3),
        "again_seconds": round(whole, 3),
        "again_is": "measured" if timed == options.masks else f"extrapolated from {timed} masks",
        "ratio": round(whole / fast, 1),
        "pixels_that_differ": float((answers[:timed] != repeated).mean()),
    }
    sys.stdout.write(json.dumps(row, indent=1) + "\n")


if __name__ == "__main__":
    main()
