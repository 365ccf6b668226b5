"""Attention modules of torch whose inner width no longer equals ``embed_dim`` after a cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from prunekit.modules.attention import NarrowAttention, is_narrow, narrow, widen
from prunekit.surgery.way_back import putter


def narrow_attention(modules: Sequence[tuple[str, nn.Module]], steps: list[Callable[[], None]]) -> None:
    """Gives them a class that can say it, and keeps the encoders around them off nested tensors, which it cannot."""
    for _, module in modules:
        if is_narrow(module):
            steps.append(partial(widen, module, narrow(module)))  # where it fails half-way, ``standing`` has the class
    for _, module in modules:
        nested = isinstance(module, nn.TransformerEncoder) and module.__dict__.get("use_nested_tensor")
        if nested and any(isinstance(part, NarrowAttention) for part in module.modules()):
            steps.append(putter(module.__dict__, "use_nested_tensor", nested))
            module.__dict__["use_nested_tensor"] = False
