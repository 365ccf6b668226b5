"""Pruned models for use elsewhere: one file a format, and the function that writes, reads back and compares."""

from prunekit.export.run import RECORD, Exported, export
from prunekit.export.table import formats_for, known_formats

__all__ = ["RECORD", "Exported", "export", "formats_for", "known_formats"]
