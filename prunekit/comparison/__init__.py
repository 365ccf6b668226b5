"""Criteria against each other and against chance."""

from prunekit.comparison.contest import CONTROL, IMAGES, SEEDS, compare, needs_no_labels
from prunekit.comparison.trials import Comparison, Line, Trial

__all__ = ["CONTROL", "IMAGES", "SEEDS", "Comparison", "Line", "Trial", "compare", "needs_no_labels"]
