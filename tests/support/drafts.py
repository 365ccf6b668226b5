"""A draft by the keyword arguments of ``prunekit.prune``."""

from __future__ import annotations

import prunekit
from prunekit.planning import drafting as _module
from prunekit.planning.drafting import Request, choose
from prunekit.selection import How

__all__ = ["choose", "draft"]

HOW = ("ranking", "align", "normaliser", "pools", "rounding", "min_ratio", "max_ratio")


def draft(model, inputs=None, *, structure=None, data=None, **given):
    how = How(**{name: given.pop(name) for name in HOW if name in given})
    structure = structure or prunekit.trace(model, inputs)
    return _module.draft(model, structure, Request(how=how, **given), data=data)
