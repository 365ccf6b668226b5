"""Which units are kept."""

from prunekit.quantities.limits import parse_target
from prunekit.selection.choosing import Conditions, select, select_within
from prunekit.selection.patterns import filter_groups

__all__ = ["Conditions", "filter_groups", "parse_target", "select", "select_within"]
