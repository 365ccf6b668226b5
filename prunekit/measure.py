"""Measured latency of a model's forward pass."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
from torch import nn

from prunekit.inputs import Inputs
from prunekit.trace.standin import swapped


@dataclass(frozen=True)
class Latency:
    """Seconds for one forward pass: minimum, median and maximum over ``runs``."""

    minimum: float
    median: float
    maximum: float
    runs: int


def latency(model: nn.Module, inputs: Inputs, *, runs: int = 5, warmup: int = 1) -> Latency:
    """Wall-clock time of ``model(*inputs.args, **inputs.kwargs)`` in eval mode without gradients."""
    times = []
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with swapped(model, lambda _, tensor: tensor), torch.no_grad():
        for number in range(warmup + runs):
            start = time.perf_counter()
            model(*inputs.args, **inputs.kwargs)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number >= warmup:
                times.append(time.perf_counter() - start)
    return Latency(min(times), statistics.median(times), max(times), runs)
