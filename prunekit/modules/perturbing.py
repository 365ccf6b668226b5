"""Weights with a little noise on them, so that parts that all start alike (norms at 1, scales at 0) tell apart."""

from __future__ import annotations

import functools
import zlib

import torch
from torch import Tensor, nn

NOISE = 1_000_003  # prime, so that no axis repeats in step with the noise


@functools.lru_cache(1)
def noise_of(seed: int) -> Tensor:
    """(NOISE,), standard normal, the same for the same seed; it is read only."""
    return torch.randn(NOISE, generator=torch.Generator().manual_seed(seed), device="cpu")


def perturbed(name: str, tensor: Tensor, seed: int, noise: Tensor) -> Tensor:
    """``tensor`` plus noise that is small against its spread; two tensors of a model start at different places."""
    flat = tensor.reshape(-1)
    if not flat.numel():
        return tensor
    sample = flat[:: max(1, flat.numel() // 10_000)].float()
    spread = float(sample.std()) if sample.numel() > 1 else 0.0
    scale = max(0.1 * spread, 0.05 * float(sample.abs().mean()), 0.01)
    start = zlib.crc32(f"{seed}{name}".encode()) % NOISE
    if not tensor.is_contiguous():
        tensor = tensor.clone(memory_format=torch.preserve_format)
        tensor.copy_(_noisy(flat, start, scale, noise).reshape(tensor.shape))
        return tensor
    return _noisy(flat, start, scale, noise).view(tensor.shape)


def _noisy(flat: Tensor, start: int, scale: float, noise: Tensor) -> Tensor:
    """``flat`` plus the noise from ``start`` on, again from its start where it ends; written once, by pieces."""
    result, done = torch.empty_like(flat), 0
    while done < flat.numel():
        part = noise[start : start + flat.numel() - done]
        here = slice(done, done + part.numel())
        torch.add(flat[here], part.to(flat), alpha=scale, out=result[here])
        start, done = 0, here.stop
    return result


def perturbed_state(name: str, tensor: Tensor, seed: int, noise: Tensor) -> Tensor:
    """A parameter with noise on it; a buffer as it is, a copy."""
    if not isinstance(tensor, nn.Parameter) or not tensor.is_floating_point():
        return nn.Parameter(tensor.detach(), False) if isinstance(tensor, nn.Parameter) else tensor.clone()
    return nn.Parameter(perturbed(name, tensor.detach(), seed, noise), requires_grad=False)
