"""Gradient checkpointing: blocks are run again in the backward pass instead of keeping what they computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

_LEAST = 2  # repeated children that make a container a stack of blocks


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The outermost repeated blocks: children of one class, with parameters, of one list or sequence of modules."""
    found: list[nn.Module] = []

    def walk(module: nn.Module) -> None:
        children = [child for child in module.children() if next(child.parameters(), None) is not None]
        same = len({type(child) for child in children}) == 1
        nested = any(True for child in children for _ in child.children())
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(children) >= _LEAST and same and nested:
            found.extend(children)
            return
        for child in children:
            walk(child)

    walk(model)
    return found


@contextmanager
def recomputed(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Within the block the repeated blocks of ``model`` keep their inputs only; afterwards all is as it was."""
    blocks = blocks_of(model) if wanted else []
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward
