"""Which units are kept."""

from prunekit.selection.patterns import filter_groups
from prunekit.selection.select import select

__all__ = ["filter_groups", "select"]
