"""A run within a latency of torch.compile or onnxruntime says what was timed, and that its own passes are eager."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from prunekit.cli.tables.run_tables import COUNTED, show_report


def said(target, *notes):
    pair = {"before": 100, "after": 50}
    report = {"model": "m", "recipe": "oneshot", "part": "", "target": target, "latency_ms": pair, "verify": {}}
    report |= {"stages": [{"title": "evaluate"}, {"title": "prune", "allocation": notes}], "seconds": 1.0}
    report |= {"skipped": {"count": 0, "items": []}, **dict.fromkeys(COUNTED, pair)}
    console = Console(file=io.StringIO(), width=120, markup=False)  # as the command's own
    show_report(console, report, Path("out"))
    return console.file.getvalue()


@pytest.mark.parametrize("target", ["macs<=50%, latency[onnx]<=60%", {"latency[onnx]": 0.1}])
def test_what_was_timed_is_shown(target):
    text = said(target, "latency[onnx]: 58.0% of the original's", "widths that kernels like")
    assert "latency[onnx]: 58.0% of the original's\n" in text
    assert "kernels" not in text
    assert "latency, eager" in text


@pytest.mark.parametrize("target", ["latency<=60%", "macs<=60%"])
def test_the_plain_latency_is_just_that(target):
    assert "eager" not in said(target)
