"""What a cut language model is worth: perplexity, next-token accuracy, and a bigram answer beside them."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from prunekit_hf.text_data import figures_of
from torch import Tensor, nn


def perplexity(model: nn.Module, windows: Sequence[dict[str, Tensor]]) -> tuple[float, float]:
    """(perplexity, next-token accuracy) over windows of {"input_ids": (batch, length)}, each read on its own."""
    found = list(figures_of(model, [window["input_ids"] for window in windows], lambda done, of: None))
    tokens = sum(window.tokens for window in found)
    loss = sum(window.loss for window in found) / tokens
    return math.exp(min(loss, 60.0)), sum(window.right for window in found) / tokens


def bigram(train: Sequence[dict[str, Tensor]], test: Sequence[dict[str, Tensor]]) -> float:
    """Next-token accuracy of whoever answers the most frequent successor in the calibration text."""
    after: dict[int, Counter[int]] = {}
    for window in train:
        for row in window["input_ids"].tolist():
            for a, b in itertools.pairwise(row):
                after.setdefault(a, Counter())[b] += 1
    right = count = 0
    for window in test:
        for row in window["input_ids"].tolist():
            for a, b in itertools.pairwise(row):
                right += bool(a in after and after[a].most_common(1)[0][0] == b)
                count += 1
    return right / count


def as_record(model: nn.Module, texts: dict[str, Sequence[dict[str, Tensor]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, windows in texts.items():
        value, accuracy = perplexity(model, windows)
        found[name] = {"perplexity": round(value, 2), "accuracy": round(accuracy, 4)}
    return found
