"""Pruned models for use elsewhere: one file a format, and the function that writes, reads back and compares."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunekit.exports.agreement import agreeing, difference_of
    from prunekit.exports.onnx_file import onnx_of
    from prunekit.exports.requirements import only_fp32, optional
    from prunekit.exports.table import formats_for, known_formats
    from prunekit.exports.writing import RECORD, Exported, export
else:
    from prunekit.deferred import deferred_names

    # a plug-in's formats are loaded with it, also where a pruned model is only read
    __getattr__, __dir__ = deferred_names(
        __name__,
        {
            **dict.fromkeys(("agreeing", "difference_of"), "prunekit.exports.agreement"),
            "onnx_of": "prunekit.exports.onnx_file",
            **dict.fromkeys(("only_fp32", "optional"), "prunekit.exports.requirements"),
            **dict.fromkeys(("formats_for", "known_formats"), "prunekit.exports.table"),
            **dict.fromkeys(("RECORD", "Exported", "export"), "prunekit.exports.writing"),
        },
    )

__all__ = [
    "RECORD",
    "Exported",
    "agreeing",
    "difference_of",
    "export",
    "formats_for",
    "known_formats",
    "onnx_of",
    "only_fp32",
    "optional",
]
