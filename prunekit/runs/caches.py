"""Tensors that a model derives from its parameters and keeps between passes; training makes them stale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from prunekit.scorers.undisturbed import Cache, tensor_caches


def remade(model: nn.Module, run: Callable[[], object]) -> list[dict[Any, Any]]:
    """Dict attributes with tensors in them that ``model`` fills by itself when ``run`` runs it; emptied on return.

    What does not come back is a constant and stays. To be emptied again whenever a parameter has changed, or a backward
    pass has freed the graph that they hang on.
    """
    caches = tensor_caches(model)
    filled = [cache for cache in caches if cache[3]]
    out = [value for _, _, value, content in caches if not content]
    together = _returning(filled, run)
    if together is None:  # one of them is a constant: each is tried alone
        together = [value for cache in filled for value in _returning([cache], run) or []]
    for value in together:
        value.clear()
    return out + together


def _returning(caches: Sequence[Cache], run: Callable[[], object]) -> list[dict[Any, Any]] | None:
    """Those of ``caches`` that a run without them fills again; None where it fails. All have their contents back."""
    if not caches:
        return []
    for _, _, value, _ in caches:
        value.clear()
    try:
        with torch.no_grad():
            run()
    except Exception:  # the model's own code reads a constant by its key: it may raise anything
        return None
    else:
        return [value for _, _, value, content in caches if content.keys() <= value.keys()]
    finally:
        for _, _, value, content in caches:
            value.clear()
            value.update(content)
