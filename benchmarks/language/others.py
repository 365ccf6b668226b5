"""The same hidden units removed by Torch-Pruning: one share in all layers, by its own criteria."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

PREFIX = "torch-pruning/"
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")  # its user names what it must leave alone


def cut_by_torch_pruning(
    model: Any, criterion: str, level: float, windows: Sequence[dict[str, Tensor]], seed: int
) -> None:
    """Removes ``level`` of all parameters in place; ``criterion``: ``magnitude``, ``taylor`` or ``random``."""
    import torch_pruning as tp

    torch.manual_seed(seed)
    whole = sum(p.numel() for p in model.parameters())
    hidden = sum(m.weight.numel() for name, m in model.named_modules() if name.endswith(FEED_FORWARD))
    importance = {
        "magnitude": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "taylor": tp.importance.GroupTaylorImportance,
        "random": tp.importance.RandomImportance,
    }[criterion]()
    if criterion == "taylor":
        for window in windows:
            model(**window, labels=window["input_ids"]).loss.backward()
    left = [
        module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Embedding)) and not name.endswith(FEED_FORWARD)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = tp.pruner.BasePruner(
            model,
            dict(windows[0]),
            importance=importance,
            pruning_ratio=level * whole / hidden,
            ignored_layers=left,
        )
        pruner.step()
    model.zero_grad(set_to_none=True)
