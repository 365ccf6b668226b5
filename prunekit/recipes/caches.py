"""Tensors that a model derives from its parameters and keeps between passes; training makes them stale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from prunekit.scorers.untouched import tensor_caches


def remade(model: nn.Module, run: Callable[[], object]) -> list[dict[Any, Any]]:
    """Dict attributes with tensors in them that ``model`` fills by itself when ``run`` runs it; emptied on return.

    What does not come back is a constant and stays. To be emptied again whenever a parameter has changed, or a backward
    pass has freed the graph that they hang on.
    """
    found = tensor_caches(model)
    for _, _, cache, _ in found:
        cache.clear()
    try:
        with torch.no_grad():
            run()
    except Exception:  # the model may read a constant by its key: whatever it raises, all of them go back
        for _, _, cache, content in found:
            cache.update(content)
        return [cache for _, _, cache, content in found if not content]
    out = []
    for _, _, cache, content in found:
        if content.keys() - cache.keys():
            cache.update(content)
        else:
            cache.clear()
            out.append(cache)
    return out
