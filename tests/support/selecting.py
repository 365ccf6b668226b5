"""Units selected by the keyword arguments of ``prunekit.prune``, and what they refer to."""

from __future__ import annotations

from prunekit.options import Options
from prunekit.selection import Conditions
from prunekit.selection import select as _select

OWN = ("floor", "kinds", "sizes")


def conditions(**given):
    own = {name: given.pop(name) for name in OWN if name in given}
    return Conditions(Options.of(**given), **own)


def select(groups, ties, scores, *, ratio, **given):
    return _select(groups, ties, scores, ratio, conditions(**given))
