"""Pruned models for use elsewhere: one file a format, and the function that writes, reads back and compares."""

from prunekit.exports.table import formats_for, known_formats
from prunekit.exports.writing import RECORD, Exported, export

__all__ = ["RECORD", "Exported", "export", "formats_for", "known_formats"]
