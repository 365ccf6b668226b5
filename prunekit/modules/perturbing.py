"""Weights with a little noise on them, so that parts that all start alike (norms at 1, scales at 0) tell apart."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor, nn

NOISE = 1_000_003  # prime, so that no axis repeats in step with the noise


def perturbed(name: str, tensor: Tensor, seed: int, noise: Tensor) -> Tensor:
    """``tensor`` plus noise that is small against its spread; two tensors of a model start at different places."""
    flat = tensor.reshape(-1)
    if not flat.numel():
        return tensor
    sample = flat[:: max(1, flat.numel() // 10_000)].float()
    spread = float(sample.std()) if sample.numel() > 1 else 0.0
    scale = max(0.1 * spread, 0.05 * float(sample.abs().mean()), 0.01)
    start = zlib.crc32(f"{seed}{name}".encode()) % NOISE
    parts: list[Tensor] = []
    while (done := sum(p.numel() for p in parts)) < flat.numel():
        parts.append(noise[start : start + flat.numel() - done])
        start = 0
    added = parts[0] if len(parts) == 1 else torch.cat(parts)
    return torch.add(tensor, added.to(tensor).reshape(tensor.shape), alpha=scale)


def perturbed_state(name: str, tensor: Tensor, seed: int, noise: Tensor) -> Tensor:
    """A parameter with noise on it; a buffer as it is, a copy."""
    if not isinstance(tensor, nn.Parameter) or not tensor.is_floating_point():
        return nn.Parameter(tensor.detach(), False) if isinstance(tensor, nn.Parameter) else tensor.clone()
    return nn.Parameter(perturbed(name, tensor.detach(), seed, noise), requires_grad=False)
