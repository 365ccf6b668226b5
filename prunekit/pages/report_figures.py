"""Figures of a report as people read them, whether a recipe or one call wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES: Mapping[str, tuple[str, float, str]] = {
    "params": ("parameters", 1e6, "M"),
    "macs": ("MACs", 1e9, "G"),
    "layer_macs": ("layer MACs", 1e9, "G"),
    "whole_params": ("parameters, whole model", 1e6, "M"),
    "whole_macs": ("MACs, whole model", 1e9, "G"),
    "whole_layer_macs": ("layer MACs, whole model", 1e9, "G"),
    "memory": ("bytes of weights", 2**20, "MiB"),
    "latency_ms": ("latency", 1.0, "ms"),
}
Row = dict[str, str]


def figure_rows(report: Mapping[str, Any]) -> list[Row]:
    """label, before, after and change of every figure of ``report``."""
    found = []
    for name, (label, unit, letter) in NAMES.items():
        pair = latency_of_report(report) if name == "latency_ms" else report.get(name)
        doubled = name.startswith("whole_") and not report.get("part")
        if pair and not doubled:
            found.append(_counted(label, pair, unit, letter))
    for name, pair in report.get("metrics", {}).items():
        change = f"{pair['after'] - pair['before']:+.4f}"
        found.append(
            {"label": name, "before": f"{pair['before']:.4f}", "after": f"{pair['after']:.4f}", "change": change}
        )
    return found


def latency_of_report(report: Mapping[str, Any]) -> dict[str, float] | None:
    """Milliseconds before and after, where they were measured."""
    if report.get("latency_ms"):
        return {side: float(report["latency_ms"][side]) for side in ("before", "after")}
    took = report.get("latency")
    return None if not took else {side: 1e3 * float(took[side]) for side in ("before", "after")}


def budget_of(report: Mapping[str, Any]) -> str:
    """What was asked to go."""
    if report.get("target") is not None:
        return f"within {report['target']}"
    return f"at ratio {report['ratio']}" if report.get("ratio") is not None else ""


def notes_of(report: Mapping[str, Any], story: Mapping[str, Any]) -> list[str]:
    """What the reader of the figures has to know."""
    found = []
    spread = report.get("latency_range_ms")
    if spread:
        each = [f"{side} {spread[side][0]:.1f} to {spread[side][1]:.1f} ms" for side in ("before", "after")]
        found.append(
            f"Latency is the median of {spread['runs']} runs on {report.get('device', 'cpu')}: {', '.join(each)}."
        )
    val = story.get("samples", {}).get("val")
    if val:
        kind = "generated samples, which say little about real data" if val["generated"] else "samples of the data"
        found.append(
            f"Metrics are means over {val['count']} {kind}; one run, seed {report.get('settings', {}).get('seed', 0)}."
        )
    checks = ", ".join(
        f"{name.replace('_', ' ')} {_in_short(value)}" for name, value in report.get("verify", {}).items()
    )
    if checks:
        found.append(f"Checked: {checks}.")
    return found


def _in_short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _counted(label: str, pair: Mapping[str, float], unit: float, letter: str) -> Row:
    before, after = pair["before"], pair["after"]
    digits = 1 if letter == "ms" else 3
    change = f"{100 * (after / before - 1):+.1f} %" if before else ""
    sides = {side: f"{value / unit:,.{digits}f} {letter}" for side, value in (("before", before), ("after", after))}
    return {"label": label, **sides, "change": change}
