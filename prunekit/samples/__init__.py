"""Samples of a task: read when asked for, checked, skipped by name, and split by the names of their files."""

from prunekit.samples.sequences import Checked, First, Lazy, Skipped, Sound, Usable
from prunekit.samples.splits import SPLITS, none_in, split_of, within
from prunekit.samples.tasks import Samples
from prunekit.samples.texts import Windows, text

__all__ = [
    "SPLITS",
    "Checked",
    "First",
    "Lazy",
    "Samples",
    "Skipped",
    "Sound",
    "Usable",
    "Windows",
    "none_in",
    "split_of",
    "text",
    "within",
]
