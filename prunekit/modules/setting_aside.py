"""A model without some of its parts, while all of them are still there: what a removal is held against."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator

from torch import nn

from prunekit.modules.bypassing import bypassed
from prunekit.modules.silencing import Addend, silenced
from prunekit.modules.unrouting import Route, unrouted

Passage = str | Addend | Route  # a block by its path, what a branch adds, the way to an expert


@contextlib.contextmanager
def set_aside(model: nn.Module, passages: Collection[Passage]) -> Iterator[None]:
    """Inside the context blocks are passed by, branches add zero, and no token is sent to experts.

    Raises TraceError for what a forward pass does not meet.
    """
    blocks = [each for each in passages if isinstance(each, str)]
    terms = [each for each in passages if isinstance(each, Addend)]
    routes = [each for each in passages if isinstance(each, Route)]
    with bypassed(model, blocks), silenced(model, terms), unrouted(model, routes):
        yield
