"""Which units are kept."""

from prunekit.selection.patterns import filter_groups
from prunekit.selection.select import How, select, select_within
from prunekit.selection.target import parse_target

__all__ = ["How", "filter_groups", "parse_target", "select", "select_within"]
