"""A draft by the keyword arguments of ``prunekit.prune``."""

from __future__ import annotations

import prunekit
from prunekit.options import Options
from prunekit.planning import drafting as _module
from prunekit.planning.candidates import choose

__all__ = ["choose", "draft"]


def draft(model, inputs=None, *, structure=None, data=None, **given):
    structure = structure or prunekit.trace(model, inputs)
    return _module.draft(model, structure, Options.of(**given), data=data)
