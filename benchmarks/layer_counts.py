"""Layer-only multiply-adds of SAM's uniform slim encoders, in the report's convention and in the published one.

    python benchmarks/layer_counts.py

The published counter adds to convolution and linear layers two operations for each element that a norm writes, and one
for each element that a convolution with bias writes.
"""

from __future__ import annotations

import logging
import sys

import torch
from torch import Tensor, nn

import prunekit
from prunekit.runs.reporting import layer_products

HEADS = 12


def widths(structure: prunekit.Structure, ratio: float) -> dict[str, Tensor]:
    """The uniform widths of the recipe: rounded down to a multiple of the head count, within a head to a whole one."""
    step = {"embedding": HEADS, "mlp.hidden": HEADS, "attention.head_dim": 1}
    groups = [g for g in structure.groups if g.role in step]
    return {g.name: torch.arange(int(g.size * (1 - ratio)) // step[g.role] * step[g.role]) for g in groups}


def counted(encoder: nn.Module, image: Tensor) -> tuple[int, int]:
    """(convolution and linear layers, with norms and convolution biases as well) for one image on the meta device."""
    plain = extra = 0

    def count(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal plain, extra
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            plain += layer_products(module, args[0], output)
        if "Norm" in type(module).__name__:
            extra += 2 * output.numel()
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            extra += output.numel()

    handles = [m.register_forward_hook(count) for m in encoder.modules()]
    encoder.to("meta")(image.to("meta"))
    for handle in handles:
        handle.remove()
    return plain, plain + extra


def main() -> None:
    from segment_anything import sam_model_registry

    from prunekit.planning.solving import make_plan

    logging.disable(logging.WARNING)
    image = torch.empty(1, 3, 1024, 1024, device="meta")
    for ratio in (0.0, 0.5, 0.77):
        encoder = sam_model_registry["vit_b"]().image_encoder.eval()
        if ratio:
            structure = prunekit.trace(encoder, image)
            prunekit.apply(encoder, make_plan(encoder, structure, widths(structure, ratio)))
        plain, published = counted(encoder, image)
        sys.stdout.write(f"ratio {ratio}: layers {plain / 1e9:.2f} G, published convention {published / 1e9:.2f} G\n")


if __name__ == "__main__":
    main()
