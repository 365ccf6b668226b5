"""Walks over arguments and results of operators: tensors inside tuples, lists and dicts.

torch's pytrees do the same for any registered container, at ten times the cost; a trace walks every operator's
arguments several times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.utils._pytree import SUPPORTED_NODES, tree_leaves

_CONTAINERS = (tuple, list, dict)


def mapped(tree: Any, change: Callable[[Any], Any]) -> Any:
    """``tree`` with every leaf replaced by ``change(leaf)``; tuples of any kind come back as plain tuples."""
    if isinstance(tree, tuple):
        return tuple([mapped(x, change) if isinstance(x, _CONTAINERS) else change(x) for x in tree])
    if isinstance(tree, list):
        return [mapped(x, change) if isinstance(x, _CONTAINERS) else change(x) for x in tree]
    if isinstance(tree, dict):
        return {k: mapped(x, change) if isinstance(x, _CONTAINERS) else change(x) for k, x in tree.items()}
    return change(tree)


def of_type(tree: Any, kind: type) -> Iterator[Any]:
    """Leaves of ``tree`` that are instances of ``kind``, in order."""
    if isinstance(tree, kind):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for x in tree:
            yield from of_type(x, kind)
    elif isinstance(tree, dict):
        for x in tree.values():
            yield from of_type(x, kind)


def meta_tensors(tree: Any) -> list[Tensor]:
    """Tensors on the meta device in a result of any registered container."""
    if isinstance(tree, Tensor):
        return [tree] if tree.is_meta else []
    if isinstance(tree, _CONTAINERS):
        return [t for t in of_type(tree, Tensor) if t.is_meta]
    if type(tree) not in SUPPORTED_NODES:
        return []
    return [t for t in tree_leaves(tree) if isinstance(t, Tensor) and t.is_meta]
