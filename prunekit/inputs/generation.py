"""Calibration inputs where there is no data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prunekit.errors import InputError
from prunekit.inputs.values import Inputs, batch_size, is_number, map_tensors, reals, tensors_in

IMAGE_CHANNELS = (1, 3, 4)


def generated(inputs: Inputs, count: int, seed: int = 0, *, whole: bool = False) -> list[Inputs]:
    """``count`` calibration inputs of batch size 1 that look like ``inputs``; the global RNG is not touched.

    ``whole`` ones have as many rows as ``inputs``.

    Floating (B, C, H, W) tensors with 1, 3 or 4 channels become images with the amplitude spectrum 1/f of natural
    scenes, zero mean and unit variance (Field 1987, "Relations between the statistics of natural images"). Other
    floats, and the parts of complex numbers, are normal with the example's mean and standard deviation, integers
    uniform in the example's [min, max], bools and everything else are copied. Raises InputError where ``count`` < 1.
    """
    if count < 1:
        raise InputError(f"{count} calibration inputs cannot be generated", hint="ask for at least one")
    generator = torch.Generator("cpu").manual_seed(seed)
    batch = None if whole else batch_size(inputs)
    main = next((id(t) for t in tensors_in(inputs) if is_number(t)), None)

    def like(example: Tensor) -> Tensor:
        real = torch.zeros_like(example, device="cpu") if example.is_meta else example.detach()
        if batch is not None and real.ndim and real.shape[0] == batch:
            real = real[:1]
        return _like(real, generator, is_main=id(example) == main)

    return [map_tensors(inputs, like) for _ in range(count)]


def _like(example: Tensor, generator: torch.Generator, *, is_main: bool) -> Tensor:
    shape = tuple(example.shape)
    if example.dtype == torch.bool or not example.numel():
        return example.clone()
    if example.is_complex():
        return torch.view_as_complex(_normal_like(reals(example), generator, is_main=is_main)).to(example.dtype)
    if not example.is_floating_point():
        low, high = int(example.min()), int(example.max())
        return torch.randint(low, high + 1, shape, generator=generator, device="cpu").to(example.device, example.dtype)
    if len(shape) == 4 and shape[1] in IMAGE_CHANNELS and min(shape[2:]) > 1:
        return natural_images(shape, generator).to(example.device, example.dtype)
    return _normal_like(example, generator, is_main=is_main)


def _normal_like(example: Tensor, generator: torch.Generator, *, is_main: bool) -> Tensor:
    """Normal, with the example's mean and standard deviation."""
    values = example.double()
    mean, std = float(values.mean()), float(values.std(correction=0))
    if std == 0.0:
        # A constant main input is a placeholder such as torch.zeros; a constant second input is a mask or a scale.
        if not is_main:
            return example.clone()
        mean, std = 0.0, 1.0
    return (torch.randn(example.shape, generator=generator, device="cpu") * std + mean).to(
        example.device, example.dtype
    )


def natural_images(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W), float32, with the amplitude spectrum 1/f, correlated channels, zero mean, unit variance."""
    batch, channels, height, width = shape
    shared = torch.randn((batch, 1, height, width), generator=generator, device="cpu")
    own = torch.randn((batch, channels, height, width), generator=generator, device="cpu")
    # Colour channels of natural scenes correlate at about 0.9, which is what sqrt(0.9) and sqrt(0.1) give here.
    white = 0.9**0.5 * shared + 0.1**0.5 * own
    frequency = torch.hypot(
        torch.fft.fftfreq(height, device="cpu")[:, None], torch.fft.rfftfreq(width, device="cpu")[None, :]
    )
    frequency[0, 0] = torch.inf  # no constant component
    images = torch.fft.irfft2(torch.fft.rfft2(white) / frequency, s=(height, width))
    images = images - images.mean(dim=(1, 2, 3), keepdim=True)
    standard: Tensor = images / images.std(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
    return standard
